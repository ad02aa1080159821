"""Free text in picture files, where ComfyUI's front end looks for a workflow: PNG's text chunks, WebP's EXIF.

The files are those that ffmpeg wrote; their pictures stay as they are.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

PNG_HEADER = 33  # bytes of the signature and of the first chunk, after which text may stand
# EXIF's tags for the text, as the host's own animations have them: the prompt's, and going down from there the others'.
PROMPT_TAG, FIRST_TAG = 0x0110, 0x010F
WEBP_EXIF = 0x08  # the flag that an EXIF chunk follows


def write_png(path: Path, texts: Mapping[str, str]) -> None:
    """Add `texts`, ASCII by name, to a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = path.read_bytes()
    tags = (
        chunk(b"tEXt", key.encode("latin-1", "replace")[:79] + b"\0" + text.encode()) for key, text in texts.items()
    )
    path.write_bytes(data[:PNG_HEADER] + b"".join(tags) + data[PNG_HEADER:])


def write_webp(path: Path, texts: Mapping[str, str]) -> None:
    """Add `texts`, ASCII by name, to a WebP file, animated or not."""
    exif = Image.Exif()
    others = (key for key in texts if key != "prompt")
    for key, tag in [("prompt", PROMPT_TAG), *zip(others, range(FIRST_TAG, 0, -1), strict=False)]:
        if key in texts:
            exif[tag] = f"{key}:{texts[key]}"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    body = path.read_bytes()[12:]
    if body.startswith(b"VP8X"):
        extended = bytearray(body[:18])
        extended[8] |= WEBP_EXIF
        body = bytes(extended) + body[18:]
    else:  # a single picture: only the extended format holds anything else
        with Image.open(path) as image:
            size = b"".join(struct.pack("<I", side - 1)[:3] for side in image.size)
        body = chunk(b"VP8X", bytes([WEBP_EXIF, 0, 0, 0]) + size) + body
    body += chunk(b"EXIF", exif.tobytes().removeprefix(b"Exif\0\0"))
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)


WRITERS: dict[str, Callable[[Path, Mapping[str, str]], None]] = {".png": write_png, ".webp": write_webp}


def read(path: Path) -> dict[str, str]:
    """What the writers above stored, by name; empty where there is none."""
    with Image.open(path) as image:
        if image.format == "PNG":
            return {str(key): value for key, value in image.info.items() if isinstance(value, str)}
        values = (str(value) for value in image.getexif().values())
        return dict(value.split(":", 1) for value in values if ":" in value)


def decoded(texts: Mapping[str, str]) -> dict[str, object]:
    """Those of `texts` that are JSON objects, arrays or strings."""
    values = {}
    for key, text in texts.items():
        if text[:1] in '{["':
            try:
                values[key] = json.loads(text)
            except json.JSONDecodeError:
                continue  # some other program's tag that merely looks like JSON
    return values
