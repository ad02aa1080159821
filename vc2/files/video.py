"""Write and read videos through ffmpeg (the binary that imageio-ffmpeg carries), one frame at a time."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from . import tags
from .codecs import compression
from .output import already_there, check_target, listed, move, scratch_folder


@dataclass(frozen=True)
class Format:
    """How ffmpeg's command line asks for a file format. `metadata`: whether the container keeps free text.

    `codecs`: what may be in it, the usual one first. `sound`: ffmpeg's arguments for a sound track, where it has one.
    """

    suffix: str
    arguments: str
    metadata: bool = False
    codecs: tuple[str, ...] = ()
    sound: str | None = None

    def compression(self, codec: str | None = None, crf: int | None = None, plays: int = 0) -> list[str]:
        """ffmpeg's arguments for `write_video`'s `codec`, `crf` and `plays`, as far as the format knows them.

        Raises ValueError for a codec or crf that it cannot have, RuntimeError where this ffmpeg lacks the codec.
        """
        if self.codecs:
            codec = codec or self.codecs[0]
            if codec not in self.codecs:
                raise ValueError(f"a {self.suffix} holds {' or '.join(self.codecs)}, not {codec}")
            return compression(codec, crf)
        if self.suffix == ".gif":  # it counts how often it starts again, and has 0 for ever and -1 for once
            return ["-loop", str(plays - 1 or -1) if plays else "0"]
        return ["-loop", str(plays)] if self.suffix == ".webp" else []


@dataclass(frozen=True)
class Sound:
    """A sound track: float32 samples `[T, channels]` in -1..1, `rate` of them a second."""

    samples: np.ndarray
    rate: int

    def lasting(self, seconds: float) -> Sound:
        """The same, cut or followed by silence, so that it is as long as a clip."""
        samples = self.samples[: round(seconds * self.rate)]
        silence = np.zeros((round(seconds * self.rate) - len(samples), samples.shape[1]), np.float32)
        return Sound(np.concatenate([samples, silence]), self.rate)


# FFmpeg's demuxers of containers that hold their frames themselves, whatever a file calls itself. A playlist (ffconcat,
# HLS) would have other files read, from the network too.
READABLE = "mov,matroska,webm,avi,gif,flv,asf,mpeg,mpegts,ogg"
_EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # 4:2:0 chroma needs even sides
_PALETTE = "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=none"
FORMATS = {
    "mp4": Format(
        ".mp4",
        f"-vf {_EVEN} -pix_fmt yuv420p -movflags +faststart+use_metadata_tags",
        metadata=True,
        codecs=("h264", "h265", "av1", "vp9"),
        sound="-c:a aac -b:a 192k",
    ),
    "webm": Format(
        ".webm",
        f"-vf {_EVEN} -pix_fmt yuv420p",
        metadata=True,
        codecs=("vp9", "av1"),
        sound="-c:a libopus -b:a 160k",
    ),
    "gif": Format(".gif", f"-vf {_PALETTE}"),
    "webp": Format(".webp", "-c:v libwebp_anim -lossless 0 -quality 90"),
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
    frame = re.compile(re.escape(path.stem) + r"_\d{5}\.png")
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
    codec: str | None = None,
    crf: int | None = None,
    plays: int = 0,
    sound: Sound | None = None,
) -> Path:
    """Encode uint8 frames `[H, W, 3]` into `path`, whose ending decides the format. Returns the path written.

    `.png` writes one file a frame, `name_00000.png` on, and returns the first. `metadata` values are stored as JSON,
    with null for NaN and infinity, in all formats but gif, which has no place for them. `codec` and `crf` (0 is best)
    are for mp4 and webm, None being the format's own; `plays` is for gif and webp, 0 being for ever. `sound` is
    written as long as it is, see `Sound.lasting`. The file is written under a temporary name and renamed: an error
    or an interrupt leaves nothing half-written. Raises ValueError for no frames, frames of different sizes, an unknown
    ending or what the format cannot hold, OSError where `check_clips` does, RuntimeError with ffmpeg's own message
    where encoding fails.
    """
    path, format = Path(path), FORMATS[format_of(path)]
    if fps <= 0:
        raise ValueError(f"fps must be positive, found {fps}")
    if sound is not None and format.sound is None:
        raise ValueError(f"{path}: a {format.suffix} holds no sound; choose .mp4 or .webm")
    try:
        compressed = format.compression(codec, crf, plays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    count = len(frames) if isinstance(frames, Sized) else 0
    check_clips([path], overwrite, count or None)
    iterator = iter(frames)
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError(f"{path}: there are no frames to write") from None
    with scratch_folder(path) as folder:
        size = f"{first.shape[1]}x{first.shape[0]}"
        inputs = f"-f rawvideo -pix_fmt rgb24 -s {size} -r {fps:g} -i pipe:0".split()
        outputs = ["-map", "0:v"]
        if metadata and format.metadata:
            (folder / "metadata.txt").write_text(_ffmetadata(metadata), encoding="utf-8")
            inputs += ["-f", "ffmetadata", "-i", "metadata.txt"]
            outputs += ["-map_metadata", "1"]
        if sound is not None and format.sound:
            np.ascontiguousarray(sound.samples, np.float32).tofile(folder / "sound.raw")
            outputs += ["-map", f"{inputs.count('-i')}:a", *format.sound.split()]
            inputs += f"-f f32le -ar {sound.rate} -ac {sound.samples.shape[1]} -i sound.raw".split()
        # ffmpeg sees only plain names in its own folder: a % in the user's name would be taken for a pattern.
        name = "clip_%05d.png" if format.suffix == ".png" else f"clip{format.suffix}"
        arguments = [*inputs, *outputs, *compressed, *format.arguments.split(), name]
        _encode(arguments, chain([first], iterator), first.shape, path, folder)
        count = len(list(folder.glob("clip*")))
        check_clips([path], overwrite, count)
        written, targets = clip_files(folder / f"clip{format.suffix}", count), clip_files(path, count)
        if metadata and format.suffix in tags.WRITERS:
            texts = {key: _json(value) for key, value in metadata.items()}
            for file in written:
                tags.WRITERS[format.suffix](file, texts)
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
            heard = all(_heard(process.stdin.write, _bytes(frame, shape, path)) for frame in frames)
        except BaseException:
            process.kill()
            raise
        finally:
            flushed = _heard(process.stdin.close)
        if process.wait() or not (heard and flushed):
            messages.seek(0)
            raise RuntimeError(f"{path}: ffmpeg failed: {messages.read().decode(errors='replace').strip()[-500:]}")


def _heard(write: Callable[..., object], *data: bytes) -> bool:
    """Write to a pipe; False where its reader has ended, which Windows calls an invalid argument."""
    try:
        write(*data)
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and error.errno != errno.EINVAL:
            raise
        return False
    return True


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
    return read_clip(path)[0]


def read_clip(path: str | os.PathLike) -> tuple[np.ndarray, float]:
    """The frames, and how many a second they are to be played at. Raises OSError as `read_video`."""
    *guard, _, name = reading(path)
    reader = imageio_ffmpeg.read_frames(name, input_params=guard)
    try:
        about = next(reader)
        width, height = about["source_size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path} cannot be read as a video: {str(error).strip().splitlines()[-1]}") from error
    if not frames:
        raise OSError(f"{path} cannot be read as a video: it has no frames")
    return np.stack(frames), float(about["fps"])


def read_metadata(path: str | os.PathLike) -> dict[str, object]:
    """The free text that `write_video` stored, decoded; empty where there is none. Raises OSError as `read_video`."""
    if Path(path).suffix.lower() in tags.WRITERS:
        return tags.decoded(tags.read(Path(path)))
    result = subprocess.run(_ffmpeg(*reading(path), "-f", "ffmetadata", "-"), capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(f"{path} cannot be read as a video: {''.join(reason)}")
    text, metadata = result.stdout.decode(errors="replace"), {}
    for line in text.replace("\\\n", "\n").splitlines()[1:]:
        key, separator, value = line.partition("=")
        if separator:
            metadata[key.lower()] = _unescape(value)
    return tags.decoded(metadata)


def _unescape(text: str) -> str:
    characters = iter(text)
    return "".join(next(characters, "") if c == "\\" else c for c in characters)
