"""Write and read videos through ffmpeg (the binary that imageio-ffmpeg carries). Formats are data; frames are streamed,
one at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np


@dataclass(frozen=True)
class Format:
    """How ffmpeg is asked for a file format. `metadata`: whether the container keeps free text."""

    suffix: str
    arguments: tuple[str, ...]
    metadata: bool = False


_EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # 4:2:0 chroma needs even sides
FORMATS = {
    "mp4": Format(
        ".mp4",
        (
            "-vf",
            _EVEN,
            "-c:v",
            "libx264",
            "-crf",
            "14",
            "-pix_fmt",
            "yuv420p",
            "-movflags",
            "+faststart+use_metadata_tags",
        ),
        metadata=True,
    ),
    "webm": Format(
        ".webm", ("-vf", _EVEN, "-c:v", "libvpx-vp9", "-crf", "18", "-b:v", "0", "-pix_fmt", "yuv420p"), metadata=True
    ),
    "gif": Format(
        ".gif", ("-vf", "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=none", "-loop", "0")
    ),
    "webp": Format(".webp", ("-c:v", "libwebp_anim", "-lossless", "0", "-quality", "90", "-loop", "0")),
    "png": Format(".png", ("-start_number", "0")),
}


def format_of(path: str | os.PathLike) -> str:
    """The format that a path's ending asks for; ValueError for one that cannot be written."""
    suffix = Path(path).suffix.lower()
    for name, format in FORMATS.items():
        if format.suffix == suffix:
            return name
    raise ValueError(
        f"{path}: cannot write {suffix or 'a file without an ending'}; use one of"
        f" {', '.join(f.suffix for f in FORMATS.values())}"
    )


def write_video(
    path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float, metadata: Mapping[str, object] | None = None
) -> Path:
    """Encode uint8 frames `[H, W, 3]` into `path`, whose ending decides the format. Returns the path written.

    `.png` writes one file a frame, `name_00000.png` on, and returns the first. `metadata` values are stored as JSON
    where the container can (mp4, webm). The file is written under a temporary name and renamed: an error or an
    interrupt leaves nothing half-written. Raises ValueError for no frames, frames of different sizes or an unknown
    ending, RuntimeError with ffmpeg's words where encoding fails.
    """
    path, format = Path(path), FORMATS[format_of(path)]
    if fps <= 0:
        raise ValueError(f"fps must be positive, found {fps}")
    iterator = iter(frames)
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError(f"{path}: there are no frames to write") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        inputs = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{first.shape[1]}x{first.shape[0]}",
            "-r",
            f"{fps:g}",
            "-i",
            "pipe:0",
        ]
        if metadata and format.metadata:
            Path(folder, "metadata.txt").write_text(_ffmetadata(metadata), encoding="utf-8")
            inputs += ["-f", "ffmetadata", "-i", "metadata.txt", "-map_metadata", "1", "-map", "0:v"]
        # ffmpeg sees only plain names in its own folder: a % in the user's name would be taken for a pattern.
        sequence = format.suffix == ".png"
        name = "%05d.png" if sequence else f"clip{format.suffix}"
        _encode([*inputs, *format.arguments, name], chain([first], iterator), first.shape, path, folder)
        return _place_sequence(Path(folder), path) if sequence else Path(folder, name).replace(path)


def _place_sequence(folder: Path, path: Path) -> Path:
    """Move the frames to `name_00000.png` on, in place of those of an earlier, perhaps longer, clip. Returns the first."""
    for old in path.parent.iterdir():
        if re.fullmatch(re.escape(path.stem) + r"_\d{5}\.png", old.name):
            old.unlink()
    return [file.replace(path.with_name(f"{path.stem}_{file.name}")) for file in sorted(folder.glob("*.png"))][0]  # noqa: RUF015 (all must be moved)


def _encode(
    arguments: list[str], frames: Iterable[np.ndarray], shape: tuple[int, ...], path: Path, folder: str
) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-hide_banner", "-loglevel", "error", *arguments]
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=words, cwd=folder) as process,
    ):
        assert process.stdin
        try:
            for frame in frames:
                process.stdin.write(_bytes(frame, shape, path))
        except BrokenPipeError:
            pass  # ffmpeg gave up; its exit status and words say why
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):  # closing flushes, into a pipe that may be gone
                process.stdin.close()
        if process.wait():
            words.seek(0)
            raise RuntimeError(f"{path}: ffmpeg failed: {words.read().decode(errors='replace').strip()[-500:]}")


def _bytes(frame: np.ndarray, shape: tuple[int, ...], path: Path) -> bytes:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
        raise ValueError(f"{path}: every frame must be uint8 {(*shape[:2], 3)}, found {frame.dtype} {frame.shape}")
    return np.ascontiguousarray(frame).tobytes()


def _ffmetadata(metadata: Mapping[str, object]) -> str:
    """ffmpeg's metadata file: `key=value`, with = ; # \\ and newlines escaped."""

    def escape(text: str) -> str:
        return "".join("\\" + c if c in "=;#\\\n" else c for c in text)

    lines = (f"{escape(key)}={escape(json.dumps(value))}" for key, value in metadata.items())
    return "\n".join([";FFMETADATA1", *lines]) + "\n"


def read_video(path: str | os.PathLike) -> np.ndarray:
    """All frames of a video, uint8 `[T, H, W, 3]`."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["source_size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def read_metadata(path: str | os.PathLike) -> dict[str, object]:
    """The free text that `write_video` stored, decoded; empty where there is none."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-i",
        str(path),
        "-f",
        "ffmetadata",
        "-",
    ]
    text = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    text, found = text.replace("\\\n", "\n"), {}
    for line in text.splitlines()[1:]:
        key, separator, value = line.partition("=")
        value = _unescape(value)
        if separator and value[:1] in '{["':
            try:
                found[key.lower()] = json.loads(value)
            except json.JSONDecodeError:
                continue  # some other program's tag that merely looks like JSON
    return found


def _unescape(text: str) -> str:
    out, characters = [], iter(text)
    for c in characters:
        out.append(next(characters, "") if c == "\\" else c)
    return "".join(out)
