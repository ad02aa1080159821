"""What ffmpeg's own filters measure: blur, blocks, spatial and temporal information."""

from __future__ import annotations

import re
import subprocess

import numpy as np

from .metric import Clip, ClipMetric, Measure, NotApplicableError

FILTERS = "blurdetect,blockdetect,siti,metadata=print:file=-"
KEYS = {"blur": "blur", "blockiness": "block", "spatial_information": "siti.si", "temporal_information": "siti.ti"}


class Filters(ClipMetric):
    name = "filters"
    measures = (
        Measure("blur", "width of edges in pixels (blurdetect), mean over the frames", "lower"),
        Measure("blockiness", "steps at the borders of blocks against those within (blockdetect): 1 is none", "lower"),
        Measure("spatial_information", "deviation of the Sobel gradient (siti, ITU-T P.910), mean", "neither"),
        Measure("temporal_information", "deviation of the change from frame to frame (siti), mean", "neither"),
    )
    library = ("imageio-ffmpeg",)
    modules = ("imageio_ffmpeg",)
    licence = "BSD-2-Clause (ffmpeg: GPL)"
    preprocessing = "frames as decoded, as 8-bit 4:2:0"
    warning = "widths are in pixels of the clip: compare sets of one size"

    def measure(self, clip: Clip) -> dict[str, float]:
        import imageio_ffmpeg

        _, height, width, _ = clip.frames.shape
        if min(height, width) < 16:
            raise NotApplicableError(f"it takes 16x16 pixels, and the clip has {width}x{height}")
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r 10 -i pipe:0 -pix_fmt yuv420p".split()
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-vf", f"format=yuv420p,{FILTERS}"]
        done = subprocess.run(
            [*command, "-f", "null", "-"], input=clip.frames.tobytes(), capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
        figures = {name: _values(done.stdout.decode(), key) for name, key in KEYS.items()}
        figures["temporal_information"] = figures["temporal_information"][1:]  # nothing is before the first frame
        # A flat frame has no edges, and no figure of them.
        return {name: float(np.mean(values)) for name, values in figures.items() if values}


def _values(printed: str, key: str) -> list[float]:
    values = (float(text) for text in re.findall(rf"lavfi\.{re.escape(key)}=(\S+)", printed))
    return [value for value in values if np.isfinite(value)]
