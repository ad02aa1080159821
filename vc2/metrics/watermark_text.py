"""Is there text on the frames, such as a stock video's watermark?"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .frames import spread
from .metric import Clip, ClipMetric, Measure

FRAMES = 3  # looked at
SURE = 0.5  # of 1, the reader's own score
LETTERS = 3  # fewer are as often a window or a fence


class WatermarkText(ClipMetric):
    name = "watermark_text"
    measures = (
        Measure(
            "watermark_text", "1 if text is read in most of the frames looked at, else 0; the mean is a rate", "lower"
        ),
        Measure("text_letters", "letters and digits read in a frame, mean", "lower"),
    )
    library = ("rapidocr", "onnxruntime")
    modules = ("rapidocr", "onnxruntime")
    extra = "evaluation-extra"
    preprocessing = "3 frames, first to last; text of 3 letters or more with a score of 0.5 or more"
    warning = "text that belongs to the scene counts, and a faint watermark (opacity below about 0.3) is not read"

    @cached_property
    def _reader(self):
        from rapidocr import RapidOCR

        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": 1} if _one_thread() else {}
        return RapidOCR(params={"Global.log_level": "error", "Global.use_cls": False, **threads})

    def measure(self, clip: Clip) -> dict[str, float]:
        letters = [sum(map(_letters, self.read(frame))) for frame in spread(FRAMES, clip.frames)]
        return {
            "watermark_text": float(np.mean([count >= LETTERS for count in letters]) > 0.5),
            "text_letters": float(np.mean(letters)),
        }

    def read(self, frame: np.ndarray) -> list[str]:
        """The lines of text in a frame uint8 `[H, W, 3]`."""
        result = self._reader(np.ascontiguousarray(frame[..., ::-1]))  # it takes BGR
        lines = zip(result.txts or (), result.scores or (), strict=True)
        return [text for text, score in lines if score >= SURE and _letters(text) >= LETTERS]


def _letters(text: str) -> int:
    return sum(character.isalnum() for character in text)


def _one_thread() -> bool:
    import torch

    return torch.get_num_threads() == 1
