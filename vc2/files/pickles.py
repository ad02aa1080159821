"""What a pickle by torch.save describes, read without executing it: names are compared, and nothing is ever called.

torch's own reader of weights alone does call what it allows: a file of 350 bytes takes all memory through `bytearray`,
and one of 500 never ends, hashing nested tuples.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any

import torch

# Opcodes in a pickle, counting with a call what it is handed, and its bytes: several times what a whole checkpoint with
# its optimizer takes.
MOST_STEPS, MOST_BYTES = 1_000_000, 2**22
MOST_DIMENSIONS = 8
# Of a dict's keys: texts of one hash are compared, and integers from 2**61 on may all have one.
MOST_CHARACTERS, LARGEST = 10_000, 2**60


class PickleError(ValueError):
    """Not a pickle as torch.save writes it."""


class ForeignObjectError(PickleError):
    """A pickle that asks for more than tensors and plain containers; the message is the name of what it asks for."""


@dataclass(frozen=True)
class Global:
    """A class or function by its full name, never looked up."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Numbers that the container holds under `key`; `dtype` is None where each tensor over them has its own."""

    key: str
    nbytes: int
    dtype: torch.dtype | None


@dataclass(frozen=True)
class Strided:
    """A tensor that is described, not read: `offset` and `stride` count numbers of `dtype` in the storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


STORAGES = {
    f"torch.{kind}Storage": dtype
    for kind, dtype in {
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Double": torch.float64,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
}
UNTYPED = "torch.storage.UntypedStorage"
DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
REBUILDS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
DICTIONARY = "collections.OrderedDict"
# What else torch.save writes of its own accord, beside the weights; read as None.
BESIDE = {
    "_codecs.encode",
    "collections.Counter",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("bytearray", "complex", "set")),
}
KNOWN = {*STORAGES, UNTYPED, *DTYPES, *REBUILDS, *PARAMETERS, WITH_ATTRIBUTES, DICTIONARY, *BESIDE}

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {
    "BINBYTES", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINSTRING", "BINUNICODE", "LONG1", "SHORT_BINBYTES",
    "SHORT_BINSTRING",
}  # fmt: skip


def read_pickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The object that the pickle at the stream's position describes (protocol 2, as torch.save's), and the storages in
    it, by key.

    Dicts, lists, tuples, numbers and strings are as they are, tensors `Strided`. Raises PickleError, ForeignObjectError
    where it names any other class or function.
    """
    storages: dict[str, Storage] = {}
    try:
        return _run(stream, storages), storages
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise PickleError(f"its pickle is damaged ({error})") from error


def _run(stream: io.BytesIO, storages: dict[str, Storage]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    steps = 0
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        # What a call is handed may be handed to any number of calls, and each goes through it.
        steps += 1 + (_length(stack[-1]) if name == "REDUCE" else 0)
        if steps > MOST_STEPS:
            raise PickleError(f"its pickle takes over {MOST_STEPS} steps, and a whole checkpoint's takes a tenth")
        if name in LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            length = int(name[-1])
            stack[-length:] = [tuple(stack[-length:])]
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _fill(stack[-1], items[0::2], items[1::2])
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            list.extend(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_named(argument.replace(" ", ".")))
        elif name == "BINPERSID":
            storage = _storage(stack.pop())
            if storages.setdefault(storage.key, storage) != storage:
                raise PickleError(f"its pickle has two storages {storage.key}")
            stack.append(storage)
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_described(function, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of what was built, such as a state dict's versions: none are read
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise PickleError(f"its pickle has the opcode {name}, which torch.save does not write")
    raise PickleError("its pickle does not end")


def _length(arguments: Any) -> int:
    """How many objects there are in a call's arguments, and in those that are lists or tuples themselves."""
    return len(arguments) + sum(len(value) for value in arguments if isinstance(value, list | tuple))


def _named(name: str) -> Global:
    if name not in KNOWN:
        raise ForeignObjectError(name)
    return Global(name)


def _fill(target: dict, keys: list, values: list) -> None:
    for key, value in zip(keys, values, strict=True):
        _check_key(key)
        dict.__setitem__(target, key, value)


def _check_key(key: Any) -> None:
    """Refuse what would be hashed or compared for ever: nested tuples, long texts, integers that have one hash."""
    match key:
        case str() | bytes() if len(key) <= MOST_CHARACTERS:
            return
        case int() if abs(key) < LARGEST:
            return
        case float() | None:
            return
    raise PickleError(f"its pickle has a dict with a key that no state dict has, a {type(key).__name__}")


def _storage(persistent: Any) -> Storage:
    match persistent:
        case ("storage", Global(name=kind), str() as key, str(), int() as count, *view) if (
            view in ([], [None]) and len(key) <= MOST_CHARACTERS
        ):
            if count >= 0 and kind == UNTYPED:
                return Storage(key, count, None)
            if count >= 0 and kind in STORAGES:
                return Storage(key, count * STORAGES[kind].itemsize, STORAGES[kind])
    raise PickleError("its pickle names a storage of an unknown kind")


def _described(function: Any, arguments: Any) -> Any:
    """What a call of a known function stands for."""
    match function, arguments:
        case Global(name=name), (Storage(), *_) if name in REBUILDS:
            return _strided(*arguments)
        case Global(name=name), (Strided() as tensor, *_) if name in PARAMETERS:
            return tensor
        case Global(name=name), (Global(name=inner), Global(), (Storage(), *_) as rest, *_) if (
            name == WITH_ATTRIBUTES and inner in REBUILDS
        ):
            return _strided(*rest)
        case Global(name=name), () if name == DICTIONARY:
            return {}
        case Global(name=name), ([*pairs],) if name == DICTIONARY:  # as Python 2 wrote them
            items: dict = {}
            _fill(items, [key for key, _ in pairs], [value for _, value in pairs])
            return items
        case Global(name=name), tuple() if name in BESIDE:
            return None
        case Global(name=name), tuple():
            raise PickleError(f"its pickle calls {name} with other arguments than torch.save writes")
    raise PickleError("its pickle calls what is no function")


def _strided(
    storage: Storage, offset: Any, size: Any, stride: Any, _grad: Any = None, _hooks: Any = None, *more: Any
) -> Strided:
    dtype = storage.dtype
    if dtype is None and more and isinstance(more[0], Global):
        dtype = DTYPES.get(more[0].name)
    numbers = (offset, *size, *stride)
    if (
        dtype is None
        or not len(size) == len(stride) <= MOST_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 2**62 for n in numbers)
    ):
        raise PickleError("its pickle has a tensor of an odd size, stride or offset")
    return Strided(storage, dtype, offset, tuple(size), tuple(stride))
