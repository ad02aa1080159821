"""Write and read videos through ffmpeg (the binary that imageio-ffmpeg carries), one frame at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from .output import already_there, check_target, listed, move, scratch_folder


@dataclass(frozen=True)
class Format:
    """How ffmpeg's command line asks for a file format. `metadata`: whether the container keeps free text."""

    suffix: str
    arguments: str
    metadata: bool = False


READABLE = "mov,mp4,matroska,webm,avi,gif"  # ffmpeg's demuxers; a video's ending and content may differ
_EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # 4:2:0 chroma needs even sides
_PALETTE = "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=none"
FORMATS = {
    "mp4": Format(
        ".mp4",
        f"-vf {_EVEN} -c:v libx264 -crf 14 -pix_fmt yuv420p -movflags +faststart+use_metadata_tags",
        metadata=True,
    ),
    "webm": Format(".webm", f"-vf {_EVEN} -c:v libvpx-vp9 -crf 18 -b:v 0 -pix_fmt yuv420p", metadata=True),
    "gif": Format(".gif", f"-vf {_PALETTE} -loop 0"),
    "webp": Format(".webp", "-c:v libwebp_anim -lossless 0 -quality 90 -loop 0"),
    "png": Format(".png", "-start_number 0"),
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


def clip_files(path: Path, frames: int) -> list[Path]:
    """The files that a clip is written as: one, or for `.png` one a frame, `name_00000.png` on."""
    if format_of(path) != "png":
        return [path]
    return [path.with_name(f"{path.stem}_{number:05d}.png") for number in range(frames)]


def existing_files(path: Path) -> list[Path]:
    """What is there under a clip's name, whoever made it; for `.png` frames of any number."""
    if format_of(path) != "png":
        return [path] if os.path.lexists(path) else []
    frame = re.compile(re.escape(path.stem) + r"_\d{5,}\.png")
    return sorted(file for file in path.parent.glob("*.png") if frame.fullmatch(file.name))


def check_clips(paths: Iterable[Path], overwrite: bool = False, frames: int | None = None) -> None:
    """Raise OSError, in a plain sentence, unless clips can be written at `paths`; see `output.check_target`.

    Without `overwrite` nothing may exist under their names. With it, the files that a clip of `frames` frames writes
    are replaced; further frames, left of a longer clip or of something else, would mix with it and are refused, for
    nothing is ever deleted. `frames` None: how many is not known yet.
    """
    paths = list(paths)
    for path in paths:
        check_target(clip_files(path, 1)[0], overwrite=True)
    existing = {path: existing_files(path) for path in paths}
    if not overwrite and any(existing.values()):
        raise already_there([file for files in existing.values() for file in files])
    if frames is None:
        return
    for path, files in existing.items():
        replaced = set(clip_files(path, frames))
        if left := [file for file in files if file not in replaced]:
            raise FileExistsError(
                f"{listed(left)} would mix with the new clip's {frames} frames; choose another name, or remove them if"
                " they are left of an older clip"
            )


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    metadata: Mapping[str, object] | None = None,
    *,
    overwrite: bool = True,
) -> Path:
    """Encode uint8 frames `[H, W, 3]` into `path`, whose ending decides the format. Returns the path written.

    `.png` writes one file a frame, `name_00000.png` on, and returns the first. `metadata` values are stored as JSON
    where the container can (mp4, webm), with null for NaN and infinity. The file is written under a temporary name and
    renamed: an error or an interrupt leaves nothing half-written. Raises ValueError for no frames, frames of different
    sizes or an unknown ending, OSError where `check_clips` does, RuntimeError with ffmpeg's own message where encoding
    fails.
    """
    path, format = Path(path), FORMATS[format_of(path)]
    if fps <= 0:
        raise ValueError(f"fps must be positive, found {fps}")
    iterator = iter(frames)
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError(f"{path}: there are no frames to write") from None
    check_clips([path], overwrite)
    with scratch_folder(path) as folder:
        size = f"{first.shape[1]}x{first.shape[0]}"
        inputs = f"-f rawvideo -pix_fmt rgb24 -s {size} -r {fps:g} -i pipe:0".split()
        if metadata and format.metadata:
            (folder / "metadata.txt").write_text(_ffmetadata(metadata), encoding="utf-8")
            inputs += ["-f", "ffmetadata", "-i", "metadata.txt", "-map_metadata", "1", "-map", "0:v"]
        # ffmpeg sees only plain names in its own folder: a % in the user's name would be taken for a pattern.
        name = "clip_%05d.png" if format.suffix == ".png" else f"clip{format.suffix}"
        _encode([*inputs, *format.arguments.split(), name], chain([first], iterator), first.shape, path, folder)
        count = len(list(folder.glob("clip*")))
        check_clips([path], overwrite, count)
        written, targets = clip_files(folder / f"clip{format.suffix}", count), clip_files(path, count)
        for file, target in zip(written, targets, strict=True):
            move(file, target)
    return targets[0]


def _ffmpeg(*arguments: str) -> list[str]:
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-hide_banner", "-loglevel", "error", *arguments]


def _encode(
    arguments: Sequence[str], frames: Iterable[np.ndarray], shape: tuple[int, ...], path: Path, folder: Path
) -> None:
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(_ffmpeg(*arguments), stdin=subprocess.PIPE, stderr=messages, cwd=folder) as process,
    ):
        assert process.stdin
        try:
            for frame in frames:
                process.stdin.write(_bytes(frame, shape, path))
        except BrokenPipeError:
            pass  # ffmpeg gave up; its exit status and messages say why
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):  # closing flushes, into a pipe that may be gone
                process.stdin.close()
        if process.wait():
            messages.seek(0)
            raise RuntimeError(f"{path}: ffmpeg failed: {messages.read().decode(errors='replace').strip()[-500:]}")


def _bytes(frame: np.ndarray, shape: tuple[int, ...], path: Path) -> bytes:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
        raise ValueError(f"{path}: every frame must be uint8 {(*shape[:2], 3)}, found {frame.dtype} {frame.shape}")
    return np.ascontiguousarray(frame).tobytes()


def _ffmetadata(metadata: Mapping[str, object]) -> str:
    """ffmpeg's metadata file: `key=value`, with = ; # \\ and newlines escaped."""

    def escape(text: str) -> str:
        return "".join("\\" + c if c in "=;#\\\n" else c for c in text)

    lines = (f"{escape(key)}={escape(_json(value))}" for key, value in metadata.items())
    return "\n".join([";FFMETADATA1", *lines]) + "\n"


def _json(value: object) -> str:
    """As a browser reads and writes it: NaN and infinity, which it refuses to read, are null."""
    plain = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(plain, allow_nan=False)


def reading(path: str | os.PathLike) -> list[str]:
    """ffmpeg's arguments to open a video file and nothing else.

    By itself it opens what a playlist names, whatever that and the file are called.
    """
    return ["-protocol_whitelist", "file", "-format_whitelist", READABLE, "-i", f"file:{path}"]


def read_video(path: str | os.PathLike) -> np.ndarray:
    """All frames of a video, uint8 `[T, H, W, 3]`. Raises OSError for what is no video file (mp4, mov, webm, mkv, avi,
    gif).
    """
    *options, name = reading(path)
    reader = imageio_ffmpeg.read_frames(name, input_params=options[:-1])
    try:
        width, height = next(reader)["source_size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path} cannot be read as a video: {str(error).strip().splitlines()[-1]}") from error
    if not frames:
        raise OSError(f"{path} cannot be read as a video: it has no frames")
    return np.stack(frames)


def read_metadata(path: str | os.PathLike) -> dict[str, object]:
    """The free text that `write_video` stored, decoded; empty where there is none. Raises OSError as `read_video`."""
    result = subprocess.run(_ffmpeg(*reading(path), "-f", "ffmetadata", "-"), capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(f"{path} cannot be read as a video: {''.join(reason)}")
    text, metadata = result.stdout.decode(errors="replace"), {}
    for line in text.replace("\\\n", "\n").splitlines()[1:]:
        key, separator, value = line.partition("=")
        value = _unescape(value)
        if separator and value[:1] in '{["':
            try:
                metadata[key.lower()] = json.loads(value)
            except json.JSONDecodeError:
                continue  # some other program's tag that merely looks like JSON
    return metadata


def _unescape(text: str) -> str:
    characters = iter(text)
    return "".join(next(characters, "") if c == "\\" else c for c in characters)
