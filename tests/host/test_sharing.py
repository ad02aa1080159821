"""Prompt and negative prompt share what no text has touched, in ComfyUI, where nothing plugged in could tell."""

from __future__ import annotations

import pytest

from tests import standin
from tests.host.inside import observed_inside

SHARED = {"nothing", "FreeU", "attn2_patch", "attn2_output_patch", "attn2 replaced", "output_block_patch"}
SHARED |= {"control output", "wrapped"}


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> dict:
    return observed_inside("sharing", standin.write(tmp_path_factory.mktemp("sharing") / "standin.safetensors"))


def test_both_prompts_share_where_nothing_could_tell(observed):
    found = {what: seen[:2] for what, seen in observed.items() if what != "kept"}
    assert found.pop("areas") == [[8, 16], [8, 16]], "4 whole frames, and 4 halves for each area and prompt"
    assert found == {what: [[4] if what in SHARED else [8], [8]] for what in found}
    assert set(found) > SHARED


def test_clips_are_what_they_are_when_nothing_is_shared(observed):
    assert max(seen[2] for what, seen in observed.items() if what != "kept") < 1e-5


def test_what_a_middle_patch_gives_stays_its_own(observed):
    """A sum goes into activations, which the patch may have kept, or which may be no memory of their own."""
    assert observed["kept"]
