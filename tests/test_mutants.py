"""The wrong lines that the bench tries are lines of today's code."""

from __future__ import annotations

from bench import mutants


def test_every_mutant_has_its_line():
    assert [mutant.before for mutant in mutants.MUTANTS if mutants.key(mutant) is None] == []
