"""Odd containers: each function gives another content by the generator's choice."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

from .originals import entries, legacy_ends, pickle_name, split_header, with_header, zipped


def _header_changed(rng: Random, data: bytes, change: Callable[[dict], Any]) -> bytes:
    header, numbers = split_header(data)
    change(header[rng.choice(sorted(header.keys() - {"__metadata__"}))])
    return with_header(header, numbers)


def header_length(rng: Random, data: bytes) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    return struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**24 + 1, 2**31, 2**63, 2**64 - 1])) + data[8:]


def header_bytes(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        # Not the digits: those of two tensors could change places, and that would be another file, not a damaged one.
        at = rng.choice([i for i in range(8, 4000) if not chr(data[i]).isdigit()])
        changed[at] ^= 1 << rng.randrange(7)
    return bytes(changed)


def offsets(rng: Random, data: bytes) -> bytes:
    def change(entry: dict) -> None:
        odd = [-1, 0, 2**40, 2**63, 2**64, 1.5, None, "0"]
        entry["data_offsets"] = rng.choice([[entry["data_offsets"][0], rng.choice(odd)], [], [0, 0, 0], [2**62, 2**62]])

    return _header_changed(rng, data, change)


def header_dtype(rng: Random, data: bytes) -> bytes:
    kinds = ["F99", "", "I16", "U16", "F8_E8M0", "F4", "F6_E2M3", "BOOL", "F64", "C64", 3, None]
    return _header_changed(rng, data, lambda entry: entry.update(dtype=rng.choice(kinds)))


def header_shape(rng: Random, data: bytes) -> bytes:
    shapes = [[2**62, 2**62], [-1], [0, 2**60], [1] * 1000, ["1"], None, [[1]], [10**30]]
    return _header_changed(rng, data, lambda entry: entry.update(shape=rng.choice(shapes)))


def header_is_deep(rng: Random, data: bytes) -> bytes:
    return with_header(rng.choice([b'{"a":' * 100_000, b'{"a":' + b"[" * 1_000_000, b"{" + b" " * 2_000_000]), data)


def header_is_long(rng: Random, data: bytes) -> bytes:
    header, numbers = split_header(data)
    return with_header(json.dumps(header).encode() + b" " * 2**25, numbers)


def metadata(rng: Random, data: bytes) -> bytes:
    header, numbers = split_header(data)
    header["__metadata__"] = rng.choice([[], 3, {"a": 1}, {"a": None}, {"sampling": {"steps": 1}}])
    return with_header(header, numbers)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.choice([0, 1, 7, 8, 9, 100, rng.randrange(len(data)), len(data) - 1])]


def appended(rng: Random, data: bytes) -> bytes:
    return data + b"\0" * rng.choice([1, 8, 4096])


SAFETENSORS = [
    header_length, header_bytes, offsets, header_dtype, header_shape, header_is_deep, header_is_long, metadata, cut,
    appended, header_bytes,
]  # fmt: skip


def _storage(rng: Random, content: dict[str, bytes]) -> str:
    return rng.choice([name for name in content if "/data/" in name])


def packed(rng: Random, data: bytes) -> bytes:
    return zipped(entries(data), rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))


def packed_otherwise(rng: Random, data: bytes) -> bytes:
    return zipped(entries(data), rng.choice([zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]))


def some_packed(rng: Random, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, entry in entries(data).items():
            archive.writestr(name, entry, rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))
    return buffer.getvalue()


def a_bomb(rng: Random, data: bytes) -> bytes:
    content = entries(data)
    content[_storage(rng, content)] = bytes(2**28)
    return zipped(content, zipfile.ZIP_DEFLATED)


def an_entry_is_gone(rng: Random, data: bytes) -> bytes:
    content = entries(data)
    del content[rng.choice([_storage(rng, content), pickle_name(content)])]
    return zipped(content)


def an_entry_is_cut(rng: Random, data: bytes) -> bytes:
    content = entries(data)
    name = _storage(rng, content)
    content[name] = content[name][: rng.choice([0, len(content[name]) - 1, len(content[name]) // 2])]
    return zipped(content, rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))


def directory_bytes(rng: Random, data: bytes) -> bytes:
    start = data.rindex(b"PK\5\6")
    directory = struct.unpack("<I", data[start + 16 : start + 20])[0]
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(directory, len(data))
        # Names are left: those of two entries could change places.
        changed[at] = rng.randrange(256) if not 48 <= data[at] < 58 else changed[at]
    return bytes(changed)


def local_headers(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for match in rng.sample(list(re.finditer(rb"PK\x03\x04", data)), 20):
        changed[match.start() + rng.choice([0, 1, 6, 8, 26, 27, 28, 29])] ^= 1 << rng.randrange(8)
    return bytes(changed)


def encrypted(rng: Random, data: bytes) -> bytes:
    changed, at = bytearray(data), rng.choice([m.start() for m in re.finditer(rb"PK\x01\x02", data)])
    changed[at + 8] |= 1
    return bytes(changed)


def odd_entries(rng: Random, data: bytes) -> bytes:
    content = entries(data)
    root = pickle_name(content).removesuffix("data.pkl")
    odd = [
        {f"{root}byteorder": b"big"}, {f"{root}byteorder": b"\xff"}, {"other/data.pkl": b"\x80\2N."},
        {f"{root}constants.pkl": b"\x80\2)."}, {f"{root}data.pkl": b""}, {f"{root}data.pkl": b"\x80\2N."},
        {f"{root}data.pkl": bytes(2**25)},
    ]  # fmt: skip
    return zipped(content | rng.choice(odd))


def the_same_name_twice(rng: Random, data: bytes) -> bytes:
    content = entries(data)
    buffer = io.BytesIO(zipped(content))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("~" + _storage(rng, content)[1:], b"x" * 64)
    twice = buffer.getvalue()
    return twice.replace(b"~rchive", b"archive")


def thousands_of_entries(rng: Random, data: bytes) -> bytes:
    return zipped(entries(data) | {f"archive/x{n}": b"" for n in range(60_000)})


ZIPS = [
    packed, some_packed, packed_otherwise, a_bomb, an_entry_is_gone, an_entry_is_cut, directory_bytes, local_headers,
    encrypted, odd_entries, the_same_name_twice, thousands_of_entries, cut, appended, directory_bytes,
]  # fmt: skip


def legacy_start(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(150)] = rng.randrange(256)
    return bytes(changed)


def legacy_counts(rng: Random, data: bytes) -> bytes:
    """How many numbers are in the first storage, which begins with that."""
    at = legacy_ends(data)[-1]
    (count,) = struct.unpack("<q", data[at : at + 8])
    return data[:at] + struct.pack("<q", rng.choice([0, -1, count - 1, count + 1, 2**62])) + data[at + 8 :]


LEGACY = [legacy_start, legacy_counts, cut]
