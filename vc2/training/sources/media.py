"""Files to samples: decode, resize, crop. Memory holds one source frame at a time and the frames that are asked for."""

from __future__ import annotations

from .clips import read_clip
from .fitting import fit
from .images import read_image
from .record import Record
from .source import Sample, View


def read(record: Record, medium: str, view: View) -> Sample:
    """A record's clip or image, as `view` says. Raises BrokenSample, whatever is wrong with the file."""
    if medium == "images":
        frame = read_image(record, (view.width, view.height))
        return Sample(fit(frame, view.width, view.height, view.place)[None], record.caption, 0.0)
    clip, fps = read_clip(record, view)
    return Sample(clip, record.caption, fps)
