"""The tensors of a file, whatever its container, and what holds for all of them whatever the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import CheckpointError
from .archives import as_text, read_archive

# By the names that people give them.
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Above what any model of the family needs, and low enough that names and shapes alone take no time.
MOST_TENSORS, MOST_HEADER, MOST_DIMENSIONS, LONGEST_SIDE = 20_000, 2**23, 5, 2**20
WEIGHTS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
# A number of these is not finite where its bits, without the sign, are this or more.
EIGHT_BITS = {torch.float8_e4m3fn: 0x7F, torch.float8_e5m2: 0x7C}


def read_content(path: Path) -> Any:
    """What a .safetensors, .ckpt, .pt or .pth file holds: tensors by name (in a .ckpt also other entries), or a list.

    The content tells the format, not the name. Tensors are memory-mapped. Raises CheckpointError.
    """
    if not _is_safetensors(path):
        return read_archive(path)
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            _check_count(path, names)
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, AttributeError, TypeError, RuntimeError) as error:
        raise _incomplete(path, error) from error


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .ckpt, .pt or .pth file, by name, memory-mapped.

    Wrappings are taken off: Lightning's `state_dict`, DeepSpeed's `module` with its `_forward_module.` prefix. Raises
    FileNotFoundError or CheckpointError; a pickle that holds anything but tensors and plain containers is refused
    unread.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    return named(path, read_content(path))


def named(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors in what `read_content` gave. Raises CheckpointError where there are none with names."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a state dict (tensor name -> tensor)")
    given = [(str(name), value) for name, value in content.items() if isinstance(value, Tensor)]
    tensors = {name.removeprefix("_forward_module."): value for name, value in given}
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors; its keys are {', '.join(str(key)[:80] for key in list(content)[:5]) or '(none)'}"
        )
    if len(tensors) != len(given):
        raise CheckpointError(f"{path} is damaged: {len(given) - len(tensors)} of its tensors have another's name")
    _check_count(path, tensors)
    return tensors


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """A safetensors file's free text; empty for other files. Raises CheckpointError for one that is damaged."""
    path = Path(path)
    if not _is_safetensors(path):
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise _incomplete(path, error) from error


def _is_safetensors(path: Path) -> bool:
    """Told from the content (eight bytes with the header's length, and the header), else from the ending.

    Raises CheckpointError for a header of absurd length, which would take long to read.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    length, size = int.from_bytes(start[:8], "little"), path.stat().st_size
    if start[8:9] == b"{" and 8 + length <= size:
        if length > MOST_HEADER:
            raise CheckpointError(f"{path} has a header of {length} bytes; no checkpoint has one so long")
        return True
    if start.startswith((b"PK\3\4", b"\x80\2\x8a\nl")) or as_text(start):
        return False
    return path.suffix.lower() in (".safetensors", ".sft")


def _incomplete(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} ({path.stat().st_size} bytes) is not a complete safetensors file ({error}); download it again"
    )


def _check_count(path: Path, names: Iterable[str]) -> None:
    if (count := len(list(names))) > MOST_TENSORS:
        raise CheckpointError(f"{path} holds {count} tensors; a checkpoint of this kind has at most a few thousand")


def check_shapes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for shapes that no model has, and for more numbers than the file can hold.

    A few bytes describe both, by sides of 0 or by memory that elements share, and working with them would take for
    ever.
    """
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if len(shape) > MOST_DIMENSIONS or not all(0 < side <= LONGEST_SIDE for side in shape):
            raise CheckpointError(f"{path}: {name} has shape {shape}, as no weights have; the file is damaged")
        if _overlaps(tensor):
            raise CheckpointError(f"{path}: numbers of {name} share their memory; save a contiguous copy of it")
    total, size = sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size
    if total > 2 * size:
        raise CheckpointError(
            f"{path}: its tensors take {total} bytes and the file has {size}, so that many share their memory; save"
            " contiguous copies of them"
        )


def _overlaps(tensor: Tensor) -> bool:
    """Whether two elements lie at one place, as an expanded tensor's do."""
    extent = 1
    for stride, side in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if side > 1 and stride < extent:
            return True
        extent += stride * (side - 1)
    return False


def check_numbers(path: Path, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Raise CheckpointError unless all are finite floating-point numbers.

    Reads every tensor once, at the speed of memory, and nothing is copied: what is mapped comes from the disk a little
    earlier than it would anyway.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in WEIGHTS and tensor.dtype not in EIGHT_BITS:
            raise CheckpointError(
                f"{path}: {prefix}{name} holds {str(tensor.dtype).removeprefix('torch.')} numbers; weights must be"
                " floating-point (fp32, fp16, bf16 or fp8). Quantised files of other kinds are not supported"
            )
        if not _finite(tensor):
            raise CheckpointError(
                f"{path}: {prefix}{name} holds numbers that are not finite (NaN or infinity); the file is damaged, or"
                " its training diverged"
            )


def _finite(tensor: Tensor) -> bool:
    if tensor.dtype in EIGHT_BITS:
        # In pieces, for there is no reduction that leaves the sign out.
        pieces = tensor.reshape(-1).view(torch.uint8).split(2**18)
        return all(int((piece & 0x7F).max()) < EIGHT_BITS[tensor.dtype] for piece in pieces)
    # Minimum and maximum are NaN where any element is, and ten times as fast as isfinite().
    return all(bool(extreme.isfinite()) for extreme in tensor.aminmax())
