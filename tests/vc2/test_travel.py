"""Lines of prompt travel as people write them."""

from __future__ import annotations

import pytest

from vc2.sampling.travel import keyframes


@pytest.mark.parametrize("colon", [":", " : ", "\N{FULLWIDTH COLON}", " \N{FULLWIDTH COLON} "])
def test_either_colon(colon):
    """Chinese keyboards have the wide one; a prompt may hold both."""
    assert keyframes(f"0{colon}a: b\n3{colon}c\N{FULLWIDTH COLON}d", 4) == [(0, "a: b"), (3, "c\N{FULLWIDTH COLON}d")]
