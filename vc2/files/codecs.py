"""How the pictures in mp4 and webm are compressed, and how much."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass

import imageio_ffmpeg


@dataclass(frozen=True)
class Codec:
    """`encoders`: ffmpeg's names, the best first, as builds differ in what they carry. `crf`: 0 to `worst`, and what
    is hard to tell from the original.
    """

    encoders: tuple[str, ...]
    crf: int
    worst: int
    arguments: str = ""


CODECS = {
    "h264": Codec(("libx264",), 14, 51),
    # Apple's players want the tag; the encoder writes its progress where ffmpeg's errors are read.
    "h265": Codec(("libx265",), 15, 51, "-tag:v hvc1 -x265-params log-level=error"),
    "av1": Codec(("libsvtav1", "libaom-av1"), 16, 63, "-b:v 0"),
    "vp9": Codec(("libvpx-vp9",), 18, 63, "-b:v 0"),
}


def compression(name: str, crf: int | None = None) -> list[str]:
    """ffmpeg's arguments for the codec `name`; `crf` None is the codec's own.

    Raises ValueError for a crf that it does not have, RuntimeError where this ffmpeg cannot write it.
    """
    codec = CODECS[name]
    crf = codec.crf if crf is None else crf
    if not 0 <= crf <= codec.worst:
        raise ValueError(f"crf must be between 0 (best) and {codec.worst} for {name}, found {crf}")
    carried = encoders(imageio_ffmpeg.get_ffmpeg_exe())
    encoder = next((encoder for encoder in codec.encoders if encoder in carried), None)
    if encoder is None:
        raise RuntimeError(
            f"{imageio_ffmpeg.get_ffmpeg_exe()} cannot write {name}: it has no {' or '.join(codec.encoders)}. Choose"
            " another codec, or name another ffmpeg in IMAGEIO_FFMPEG_EXE"
        )
    return ["-c:v", encoder, "-crf", str(crf), *codec.arguments.split()]


@functools.cache
def encoders(ffmpeg: str) -> frozenset[str]:
    """The names of the encoders that the program `ffmpeg` carries."""
    listed = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], check=True, capture_output=True, text=True).stdout
    _, _, table = listed.partition(" ------")
    return frozenset(line.split()[1] for line in table.splitlines() if len(line.split()) > 1)
