"""What torch.save wrote (.ckpt, .pt, .pth), mapped: a zip archive or, before 1.6, pickles and then the numbers."""

from __future__ import annotations

import codecs
import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import CheckpointError
from .pickles import MOST_BYTES, ForeignObjectError, PickleError, Storage, Strided, read_pickle

# After the pickle's own two bytes: the number that the older format begins with.
LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LOCAL_HEADER = struct.Struct("<4s22xHH")
PIECE = 2**20

# What zipfile raises for an archive that is none, beside what this package does.
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, OSError, EOFError)

Buffer = bytearray | memoryview


def read_archive(path: Path) -> Any:
    """The state dict (tensors by name, among other entries) or list that torch.save wrote; without its wrapping.

    Wrappings are Lightning's `state_dict` and DeepSpeed's `module`. Tensors are mapped where the file holds their
    numbers as they are, and read where it holds them compressed. Raises CheckpointError for a file that is damaged, of
    another kind, or asks for anything but tensors and plain containers.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(512)
    try:
        if start.startswith(b"PK"):
            return _read_zip(path)
        if start[2:].startswith(LEGACY_START):
            return _read_legacy(path)
        raise _neither(path, start)
    except CheckpointError:
        raise
    except ForeignObjectError as error:
        if str(error).startswith("torch."):
            raise CheckpointError(f"{path} holds a {error}, and weights are plain tensors; save it as those") from error
        raise CheckpointError(
            f"{path} holds more than tensors ({error}), and loading that could run code. Nothing was executed. Get the"
            " weights as .safetensors, or a .ckpt with the state dict only"
        ) from error
    except DAMAGE as error:
        raise CheckpointError(
            f"{path} ({size} bytes) is truncated or not a PyTorch checkpoint: {str(error).rstrip('.')}. Download it"
            " again"
        ) from error


def _neither(path: Path, start: bytes) -> Exception:
    """Why a file is in neither format."""
    if start[257:262] == b"ustar":
        return CheckpointError(
            f"{path} is a tar archive, PyTorch's format of before 2018; load it with the PyTorch that wrote it and save"
            " it again"
        )
    try:
        with open(path, "rb") as file:
            read_pickle(io.BytesIO(file.read(MOST_BYTES)))
    except ForeignObjectError as error:
        return error
    except PickleError:
        pass
    if text := as_text(start):
        advice = "give the file with the weights, .safetensors, .ckpt, .pt or .pth"
        if text.startswith("version https://git-lfs"):
            advice = "it stands for the weights, which `git lfs pull` fetches"
        elif text.lstrip().startswith("<"):
            advice = "it is a web page; download the file that the page is about"
        return CheckpointError(f"{path} is a text file, not weights (it starts with {text[:24]!r}); {advice}")
    return CheckpointError(f"{path} is not a PyTorch checkpoint (it starts with {start[:24]!r}); download it again")


def as_text(start: bytes) -> str | None:
    """The first bytes of a file as text, which may be cut within a character; None where they are none."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError:
        return None
    return text if text and all(c.isprintable() or c in "\t\n\r\f" for c in text) else None


def _map(path: Path) -> memoryview:
    """The file's bytes; what is written into them stays in this process and never reaches the file."""
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


class _Archive(io.FileIO):
    """The file for zipfile, which reads an archive's directory in one piece, however long that claims to be."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MOST_BYTES:
            raise zipfile.BadZipFile(f"its directory claims {size} bytes")
        return super().read(size)


def _read_zip(path: Path) -> Any:
    with _Archive(path) as file, zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path} is a zip archive without PyTorch's data.pkl; it holds"
                f" {', '.join(list(entries)[:3]) or 'nothing'}"
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise CheckpointError(
                f"{path} is a TorchScript program, not a checkpoint; get the weights as .safetensors or .ckpt"
            )
        _check_entries(path, archive, root)
        content, _ = read_pickle(io.BytesIO(_unpacked(archive, entries[pickles[0]])))
        mapped = _map(path)

        def find(storage: Storage) -> Buffer:
            entry = entries.get(f"{root}data/{storage.key}")
            if entry is None or entry.file_size != storage.nbytes:
                state = "is missing" if entry is None else f"has {entry.file_size} bytes"
                raise zipfile.BadZipFile(f"its entry data/{storage.key} {state}; its tensors take {storage.nbytes}")
            return _stored(mapped, entry) if entry.compress_type == zipfile.ZIP_STORED else _unpacked(archive, entry)

        return _with_tensors(content, find)


def _check_entries(path: Path, archive: zipfile.ZipFile, root: str) -> None:
    """Refuse what would take long or much memory to read, or be read wrong."""
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) != len(entries):
        raise zipfile.BadZipFile("two of its entries have one name")
    for entry in entries:
        if entry.flag_bits & 1:
            raise zipfile.BadZipFile(f"its entry {entry.filename} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"its entry {entry.filename} is compressed by method {entry.compress_type}")
    if archive.getinfo(f"{root}data.pkl").file_size > MOST_BYTES:
        raise zipfile.BadZipFile(f"its data.pkl claims more than {MOST_BYTES} bytes")
    if sum(entry.file_size for entry in entries) > 2 * path.stat().st_size:
        raise CheckpointError(
            f"{path} is compressed to less than half of what it holds, and would take that much memory; unpack it, and"
            " pack it again without compression (zip -0)"
        )
    order = [entry for entry in entries if entry.filename == f"{root}byteorder"]
    if order and (order[0].file_size != len(b"little") or _unpacked(archive, order[0]) != b"little"):
        raise _big_endian(path)


def _big_endian(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} was written on a big-endian machine; load it there and save it as .safetensors")


def _stored(mapped: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    start = entry.header_offset + LOCAL_HEADER.size
    signature, name, extra = LOCAL_HEADER.unpack(mapped[entry.header_offset : start])
    data = mapped[start + name + extra :][: entry.file_size]
    if signature != b"PK\3\4" or len(data) != entry.file_size or entry.compress_size != entry.file_size:
        raise zipfile.BadZipFile(f"its entry {entry.filename} does not lie where its directory says")
    return data


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    """An entry's bytes, in pieces: in one, zipfile would unpack all there are, however few the directory claims."""
    data, end = bytearray(entry.file_size), 0
    with archive.open(entry) as file:
        while piece := file.read(PIECE):
            data[end : end + len(piece)] = piece
            end += len(piece)
    if end != entry.file_size:
        raise zipfile.BadZipFile(f"its entry {entry.filename} has {end} bytes instead of {entry.file_size}")
    return data


def _read_legacy(path: Path) -> Any:
    """Five pickles (the number, the protocol, the machine, the content, the storages' keys), then every storage in that
    order: how many numbers, in eight bytes, and the numbers.
    """
    mapped = _map(path)
    stream = io.BytesIO(mapped[:MOST_BYTES])
    read_pickle(stream), read_pickle(stream)
    machine, _ = read_pickle(stream)
    content, storages = read_pickle(stream)
    keys, _ = read_pickle(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _big_endian(path)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise PickleError("its list of storages is not that of its tensors")
    starts, end = {}, stream.tell()
    for key in keys:
        starts[key], end = end, end + 8 + storages[key].nbytes

    def find(storage: Storage) -> memoryview:
        start = starts[storage.key]
        (count,), data = struct.unpack("<q", mapped[start : start + 8]), mapped[start + 8 :][: storage.nbytes]
        itemsize = storage.dtype.itemsize if storage.dtype else 1
        if len(data) != storage.nbytes or count * itemsize != storage.nbytes:
            raise PickleError(
                f"its storage {storage.key} has {count} numbers in {len(data)} bytes; its tensors take {storage.nbytes}"
            )
        return data

    return _with_tensors(content, find)


def _with_tensors(content: Any, find: Callable[[Storage], Buffer]) -> Any:
    """The state dict or list in `content`, with its tensors."""
    for wrapping in ("state_dict", "module"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    read: dict[str, Tensor] = {}

    def tensor(value: Any) -> Any:
        if not isinstance(value, Strided):
            return value
        storage = value.storage
        if storage.key not in read and storage.nbytes:
            numbers = torch.frombuffer(find(storage), dtype=torch.uint8)
            # Only torch.save's own archives put the numbers where they can be read from.
            read[storage.key] = numbers if numbers.data_ptr() % value.dtype.itemsize == 0 else numbers.clone()
        if 0 in value.size:
            return torch.empty(value.size, dtype=value.dtype)
        count = storage.nbytes // value.dtype.itemsize
        if value.offset + sum((n - 1) * step for n, step in zip(value.size, value.stride, strict=True)) >= count:
            raise PickleError(f"a tensor reaches beyond its storage {storage.key}")
        numbers = read[storage.key][: count * value.dtype.itemsize].view(value.dtype)
        return numbers.as_strided(value.size, value.stride, value.offset)

    if isinstance(content, dict):
        return {name: tensor(value) for name, value in content.items()}
    return [tensor(value) for value in content] if isinstance(content, list | tuple) else content
