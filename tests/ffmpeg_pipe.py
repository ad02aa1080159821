"""How 0.2.0 decoded clips: by two runs of the ffmpeg program, one to ask for rate and length and one for the frames."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np


def probe(path: Path) -> tuple[float, int]:
    """Frames a second and their number."""
    reader = imageio_ffmpeg.read_frames(str(path), output_params=["-frames:v", "1"])
    meta = next(reader)
    reader.close()
    return float(meta["fps"]), round(meta["duration"] * float(meta["fps"]))


def decode(path: Path, fps: float, first: int, stride: int, frames: int) -> np.ndarray:
    """uint8 `[T, H, W, 3]`."""
    start = max(0.0, (first - 0.25) / fps)
    output = ["-vf", f"fps={fps:.6f},select=not(mod(n\\,{stride}))", "-fps_mode", "passthrough"]
    reader = imageio_ffmpeg.read_frames(
        str(path), input_params=["-ss", f"{start:.6f}"], output_params=[*output, "-frames:v", str(frames)]
    )
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])
