from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vc2.files.grid import side_by_side


def clip(frames, value, height=20, width=30):
    return [np.full((height, width, 3), value + t, np.uint8) for t in range(frames)]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.integers(0, 9), st.booleans())
def test_every_clip_is_in_the_grid(lengths, columns, labelled):
    clips = [clip(n, 20 * i) for i, n in enumerate(lengths)]
    frames = list(side_by_side(clips, [f"clip {i}" for i in range(len(clips))] if labelled else [], columns))
    assert len(frames) == max(lengths)
    strip = 16 if labelled else 0
    per_row = min(columns or int(np.ceil(np.sqrt(len(clips)))), len(clips))
    for t, frame in enumerate(frames):
        for i, one in enumerate(clips):
            y, x = i // per_row * (20 + strip + 4), i % per_row * 34
            assert (frame[y : y + 20, x : x + 30] == one[min(t, len(one) - 1)]).all()
    if labelled:
        assert frames[0][20:36, :30].max() > 100  # the label's ink


def test_clips_of_other_sizes_are_scaled():
    (frame,) = side_by_side([clip(1, 0), clip(1, 200, 40, 40)])
    assert frame.shape == (20, 64, 3)
    assert (frame[:, 34:] == 200).all()


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="nothing to compare"):
        list(side_by_side([]))
    with pytest.raises(ValueError, match="2 labels for 1 clips"):
        list(side_by_side([clip(1, 0)], ["a", "b"]))
