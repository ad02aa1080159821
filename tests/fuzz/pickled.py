"""Odd pickles: each function gives another content by the generator's choice; `trace` is a path that none may make."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from .originals import entries, legacy_ends, opcodes, pickle_name, zipped


def text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _calls(rng: Random, trace: str) -> bytes:
    """Opcodes that would leave the folder `trace`, or run other code, if anyone executed them."""
    code = f"__import__('os').mkdir({trace!r})"
    return rng.choice(
        [
            b"cposix\nmkdir\n" + text(trace) + b"\x85R",
            b"cos\nsystem\n" + text(f"mkdir {trace}") + b"\x85R",
            b"cbuiltins\neval\n" + text(code) + b"\x85R",
            b"cbuiltins\nexec\n" + text(code) + b"\x85R",
            b"c__builtin__\neval\n" + text(code) + b"\x85R",
            b"\x8c\x08builtins\x8c\x04exec\x93" + text(code) + b"\x85R",
            b"(" + text(trace) + b"iposix\nmkdir\n",
            b"(cposix\nmkdir\n" + text(trace) + b"o",
            b"csubprocess\nPopen\n" + text(f"mkdir {trace}") + b"\x85\x81",
            b"ctorch._utils\n_rebuild_wrapper_subclass\n" + text(trace) + b"\x85R",
            b"ctorch\nload\n" + text(trace) + b"\x85R",
            b"ccollections\nOrderedDict\n)R}" + text("__class__") + b"cposix\nmkdir\nsb",
            b"\x82\x01",
        ]
    )


def _called(function: bytes, arguments: bytes, times: int) -> bytes:
    """A list of as many calls of one function, all with the same arguments."""
    return b"](" + function + b"q\0" + arguments + b"q\1" + b"h\0h\1R" * times + b"e"


_PAIRS = b"](" + b"".join(b"J" + struct.pack("<i", n) + b"N\x86" for n in range(10_000)) + b"e\x85"
_STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\1tQ"
_LONG = text("a" * 1_000_000)

BOMBS = {
    "pairs": _called(b"ccollections\nOrderedDict\n", _PAIRS, 20_000),
    "arguments": _called(
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"(" + _STORAGE + b"K\0))" + b"N" * 100_000 + b"t", 100_000
    ),
    "long keys": b"](" + _LONG + b"q\0" + _LONG + b"q\1}h\0Ns" + b"h\1Ns" * 300_000 + b"e",
    "keys of one hash": b"}("
    + b"".join(b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N" for n in range(150_000))
    + b"u",
    "bytearray": b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    "torch.Tensor": b"ctorch\nTensor\nJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86R",
    "UntypedStorage": b"ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R",
    "nested key": b"})" + b"".join(bytes([0x71, i, 0x68, i, 0x86]) for i in range(60)) + b"K\1s",
    "deep list": b"]" * 200_000 + b"a" * 199_999,
    "steps": b"N0" * 2_000_000 + b"N",
    "numbers": b"N" * 1_200_000,
    "memo": b"Nr\xff\xff\xff\x7f",
    "length": b"X\xff\xff\xff\xff",
}


def a_call(rng: Random, pickled: bytes, trace: str) -> bytes:
    pieces = opcodes(pickled)
    return b"".join([*pieces[:-1], b"(", _calls(rng, trace), b"t", pieces[-1]])


def a_call_first(rng: Random, pickled: bytes, trace: str) -> bytes:
    return b"\x80\2" + _calls(rng, trace) + b"0" + pickled[2:]


def a_call_within(rng: Random, pickled: bytes, trace: str) -> bytes:
    pieces = opcodes(pickled)
    at = rng.choice([i for i, piece in enumerate(pieces) if piece.startswith((b"K", b"X"))])
    return b"".join([*pieces[:at], _calls(rng, trace), *pieces[at + 1 :]])


def a_bomb_within(rng: Random, pickled: bytes, _: str) -> bytes:
    pieces = opcodes(pickled)
    at = rng.choice([i for i, piece in enumerate(pieces) if piece.startswith((b"K", b"X"))])
    return b"".join([*pieces[:at], rng.choice(list(BOMBS.values())), *pieces[at + 1 :]])


def opcodes_dropped(rng: Random, pickled: bytes, _: str) -> bytes:
    pieces = opcodes(pickled)
    for _ in range(rng.randrange(1, 3)):
        del pieces[rng.randrange(len(pieces))]
    return b"".join(pieces)


def opcodes_doubled(rng: Random, pickled: bytes, _: str) -> bytes:
    pieces = opcodes(pickled)
    at = rng.randrange(len(pieces))
    return b"".join([*pieces[:at], pieces[at], *pieces[at:]])


def opcodes_exchanged(rng: Random, pickled: bytes, _: str) -> bytes:
    pieces = opcodes(pickled)
    a, b = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    pieces[a], pieces[b] = pieces[b], pieces[a]
    return b"".join(pieces)


def numbers_exchanged(rng: Random, pickled: bytes, _: str) -> bytes:
    pieces = opcodes(pickled)
    odd = [b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x09" + b"\xff" * 8 + b"\0", b"\x88", b"N", text("1"),
           b"G\x7f\xf8\0\0\0\0\0\0", b"]", b"}", b")", b"K\0"]  # fmt: skip
    for at in rng.sample([i for i, piece in enumerate(pieces) if piece[:1] in (b"K", b"M", b"J")], rng.randrange(1, 4)):
        pieces[at] = rng.choice(odd)
    return b"".join(pieces)


def types_exchanged(rng: Random, pickled: bytes, _: str) -> bytes:
    found = rng.choice([b"ctorch\nHalfStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"])
    other = rng.choice(
        [
            b"ctorch\nFloatStorage\n", b"ctorch\nLongStorage\n", b"ctorch\nQInt8Storage\n", b"ctorch\nfloat16\n",
            b"ctorch.storage\nUntypedStorage\n", b"ctorch._utils\n_rebuild_sparse_tensor\n",
            b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch._utils\n_rebuild_qtensor\n",
            b"ctorch._tensor\n_rebuild_from_type_v2\n",
        ]
    )  # fmt: skip
    return pickled.replace(found, other, rng.choice([1, -1]))


def pickle_bytes(rng: Random, pickled: bytes, _: str) -> bytes:
    changed = bytearray(pickled)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def pickle_cut(rng: Random, pickled: bytes, _: str) -> bytes:
    return pickled[: rng.randrange(len(pickled))]


PICKLES = [
    a_call, a_call_first, a_call_within, a_bomb_within, opcodes_dropped, opcodes_doubled, opcodes_exchanged,
    numbers_exchanged, types_exchanged, pickle_bytes, pickle_cut, a_call_within, a_bomb_within, pickle_bytes,
    numbers_exchanged,
]  # fmt: skip


def in_zip(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    content = entries(data)
    name = pickle_name(content)
    return zipped(content | {name: change(content[name])})


def in_legacy(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Of the five pickles before the numbers, the fourth: the content."""
    ends = legacy_ends(data)
    return data[: ends[3]] + change(data[ends[3] : ends[4]]) + data[ends[4] :]
