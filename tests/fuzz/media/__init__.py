"""Damaged pictures, captions, clips and rows of lists, read as training reads them: each is a sample, or a broken one
that is named in one line, and nothing else is raised, run or written. Try n is always the same one.
"""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from tests.fuzz.guard import SECONDS, measured
from vc2.training.sources import media
from vc2.training.sources.record import Record, blamed, caption_of, text_of
from vc2.training.sources.rows import csv_row, json_row
from vc2.training.sources.select import DETAILS, Select, Selection, size_of_bytes
from vc2.training.sources.source import BrokenSample, View

SIDE = 32
EXTREME = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\1",
)
TURNS = ("picture", "picture", "clip", "clip", "caption", "row", "size")
COLUMNS = ("path", "caption", "width", "height", "pwatermark", "aesthetic")


def pictures() -> list[bytes]:
    """Small ones of every format, mode and kind of note."""
    grey = np.add.outer(np.arange(24), 4 * np.arange(40)).astype(np.uint8)
    colour = Image.fromarray(np.stack([grey, grey.T.reshape(grey.shape), 255 - grey], -1))
    turned = Image.Exif()
    turned[0x0112], turned[0x010F], turned[0x011A] = 6, "a camera", 72.0
    sixteen, real = Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray(grey.astype(np.float32) / 255)
    written = [
        (colour, "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (sixteen, "PNG", {}),
        (colour, "JPEG", {"exif": turned}),
        (colour.resize((400, 240)), "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "WEBP", {"exif": turned}),
        (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        (colour, "TIFF", {"compression": "tiff_lzw", "exif": turned}),
        (colour, "TIFF", {"compression": "jpeg"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (sixteen, "TIFF", {}),
        (real, "TIFF", {}),
        (Image.fromarray(grey.astype(np.int32)), "TIFF", {}),
        (colour.convert("LAB"), "TIFF", {}),
        (colour, "BMP", {}),
        (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(90)]}),
        (colour, "AVIF", {"exif": turned}),
        (colour, "JPEG2000", {}),
    ]
    out = []
    for image, format, options in written:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        out.append(buffer.getvalue())
    return out


def clips(folder: Path) -> list[bytes]:
    """Ten frames in every container, with every note that is looked at."""
    forms = {
        "a.mp4": "-pix_fmt yuv420p",
        "turned.mp4": "-c copy",
        "wide.mp4": "-pix_fmt yuv420p -vf setsar=2",
        "b.webm": "-c:v libvpx-vp9 -deadline realtime",
        "c.mkv": "-c:v mpeg4 -f matroska",
        "d.avi": "-c:v mpeg4",
        "e.mov": "-c:v mjpeg",
        "f.gif": "",
        "g.ts": "-c:v mpeg2video",
        "h.mp4": "-pix_fmt yuv420p -movflags frag_keyframe+empty_moov -g 5",
    }
    source = f"-f lavfi -i testsrc2=size={SIDE}x{SIDE}:rate=10:duration=1"
    for name, form in forms.items():
        took = f"-display_rotation 90 -i {folder / 'a.mp4'}" if name == "turned.mp4" else source
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *took.split(), *form.split(), str(folder / name)]
        subprocess.run(command, check=True)
    return [(folder / name).read_bytes() for name in forms]


def captions() -> list[bytes]:
    text = 'a red circle, "Zürich": 夜の街 🌃\nmoving right'
    plain = [text.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be")]
    tables = [json.dumps({"caption": text, "n": 3}).encode(encoding) for encoding in ("utf-8", "utf-16")]
    return [*plain, "a café".encode("latin-1"), *tables, b"", b"\xff\xfe", b'{"caption": "\\ud800 half"}']


def rows() -> list[bytes]:
    """Of a CSV with COLUMNS, and of JSON lines; some are odd from the start."""
    numbers = (512, "512", 1e39, "nan", "-inf", 10**400, None, [[]], True, "0x10", "")
    tables = [dict(zip(COLUMNS, ("a.png", 'a 5" pipe', n, 40, 0.1, n), strict=True)) for n in numbers]
    written = [json.dumps(table) for table in tables] + ["[" * 100_000, '{"width": ' * 50_000]
    text = io.StringIO()
    csv.writer(text).writerows([*(table.values() for table in tables), ["a" * 150_000]])
    return [line.encode() for line in (*written, *text.getvalue().splitlines())]


def mutate(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A few things that happen to files, and some that people do to them."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        # Headers are short, and most of what can go wrong is in them.
        at = min(at, rng.randrange(64)) if rng.random() < 0.4 else at
        length = rng.choice((1, 2, 4, 16, 64, 256))
        change = rng.randrange(8)
        if change == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            out[at : at + length] = rng.randbytes(length)
        elif change == 2:
            value = rng.choice(EXTREME)
            out[at : at + len(value)] = value
        elif change == 3:
            del out[at : at + length]
        elif change == 4:
            out[at:at] = out[at : at + length] * rng.choice((1, 1, 8))
        elif change == 5:
            del out[at:]
        elif change == 6 and at + 4 <= len(out):
            number = struct.unpack_from(">I", out, at)[0]
            struct.pack_into(">I", out, at, (number + rng.choice((-1, 1, 255, 65536))) % 2**32)
        else:
            piece = rng.choice(others)
            start = rng.randrange(len(piece) + 1)
            out[at : at + length] = piece[start : start + length]
    return bytes(out)


class Fuzzer:
    def __init__(self, folder: Path):
        self.folder = folder
        self.originals = {"picture": pictures(), "caption": captions(), "clip": clips(folder), "row": rows()}
        self.originals["size"] = self.originals["picture"]

    def make(self, number: int) -> tuple[str, bytes]:
        rng = random.Random(number)
        kind = TURNS[number % len(TURNS)]
        originals = self.originals[kind]
        return kind, mutate(rng.choice(originals), originals, rng)

    def read(self, kind: str, content: bytes, number: int) -> None:
        """Raises BrokenSample, or AssertionError for a sample that is none."""
        if kind == "caption":
            with blamed("file"):  # as what raises in a table is its row's
                table = number % 2 and content[:1] == b"{"
                text = json.loads(content)["caption"] if table else text_of(content, "file")
            caption = caption_of(text, "file")
            assert caption.strip() == caption != ""
            assert "\n" not in caption
            caption.encode()
            return
        if kind in ("row", "size"):
            self.select(kind, content)
            return
        path = self.folder / "file"
        path.write_bytes(content)
        # As a file, and as bytes in a tar.
        place = path if number % 2 else (path, 0, len(content))
        rng = random.Random(-number)
        view = View(4, (1, 3), (rng.random(), rng.random()), 64, 48, (rng.random(), rng.random()))
        sample = media.read(Record("file", "a caption", place, ""), "images" if kind == "picture" else "clips", view)
        assert sample.frames.shape == (1 if kind == "picture" else 4, 3, 48, 64), sample.frames.shape
        assert sample.frames.dtype == torch.uint8
        assert sample.frames.is_contiguous()
        assert 0 <= sample.fps < 1000, sample.fps

    def select(self, kind: str, content: bytes) -> None:
        """What a `select` looks at before a sample is read. Raises BrokenSample, or AssertionError for what is none."""
        criteria = Select(min_side=8, max_aspect=3, max_watermark=0.5, min_aesthetic=5)
        if kind == "size":
            details = (*size_of_bytes(content), 0.0, 6.0)
        elif content[:1] in (b"{", b"["):
            details = criteria.read(json_row(content, "file"))
        else:
            details = criteria.read(csv_row(text_of(content, "file"), COLUMNS, "file"))
        known = np.array([details], DETAILS)
        assert tuple(known[0])[:2] == details[:2]
        assert not np.isinf([known["watermark"], known["aesthetic"]]).any()
        Selection(criteria)(known)

    def judge(self, number: int) -> tuple[str, float]:
        """("a picture, read" or so, seconds). Raises AssertionError for what must not be."""
        kind, content = self.make(number)
        why = ""
        with measured() as cost:
            try:
                self.read(kind, content, number)
            except BrokenSample as error:
                why = str(error)
        if why:
            assert why.startswith("file "), f"it is not named: {why}"
            assert len(why.splitlines()) == 1, f"it is not one line: {why!r}"
            why.encode()
        assert cost.seconds < SECONDS, f"{cost.seconds:.1f} s"
        deeds = [deed for deed in cost.deeds if deed != f"open {self.folder / 'file'}"]
        assert not deeds, f"it did {deeds}"
        return f"{kind}s {'broken' if why else 'read'}", cost.seconds
