"""README's table of cards is what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import cards

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_says_what_is_counted():
    """Where this fails, `python -m bench.cards` writes it anew."""
    section = README.read_text(encoding="utf-8").split("\n## Which card\n")[1].split("\n## ")[0]
    assert section.strip() == cards.text().strip()


def test_a_larger_card_takes_more_and_a_larger_picture_fewer():
    model = cards.weights()
    small, large = (cards.most_frames(8, size, model) for size in cards.SIZES)
    assert small > large
    assert cards.most_frames(12, cards.SIZES[1], model) > large
    assert model == pytest.approx(2.83e9, rel=0.01)
