"""What the nodes tell a host beyond their inputs: words to find them by, and which inputs are seldom changed.

Older hosts take none of it; the nodes still register there, which every other test here shows.
"""

from __future__ import annotations

import pytest

from scripts.comfyui import comfyui_tree

# The newest ComfyUI that lacks them is 0.8.0, the oldest at hand that has them 0.28.0.
KNOWN = "search_aliases" in (comfyui_tree() / "comfy_api" / "latest" / "_io.py").read_text()


@pytest.fixture(scope="module")
def ours(client):
    return {name: info for name, info in client.object_info().items() if name.startswith("VC2")}


def test_an_older_host_is_told_nothing_that_it_does_not_know(ours):
    options = [spec[1] for info in ours.values() for spec in info["input"].get("required", {}).values()]
    assert any("advanced" in option for option in options) == KNOWN
    assert any(info.get("search_aliases") for info in ours.values()) == KNOWN


@pytest.mark.skipif(not KNOWN, reason="this ComfyUI knows no search aliases")
@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("text to video", {"VC2Sampler", "VC2EmptyLatentVideo", "VC2TurboSampler"}),
        ("t2v", {"VC2LoadCheckpoint", "VC2Sampler"}),
        ("mp4", {"VC2SaveVideo"}),
        ("gif", {"VC2SaveVideo"}),
        ("long video", {"VC2ContextWindows", "VC2FIFOSampler"}),
        ("prompt schedule", {"VC2PromptTravel"}),
    ],
)
def test_nodes_are_found_by_what_people_type(ours, typed, names):
    found = {name for name, info in ours.items() if typed in info["search_aliases"]}
    assert names <= found


@pytest.mark.skipif(not KNOWN, reason="this ComfyUI folds no inputs away")
def test_what_every_run_sets_is_never_folded_away(ours):
    def folded(name):
        return {key for key, spec in ours[name]["input"]["required"].items() if spec[1].get("advanced")}

    assert folded("VC2Sampler") == {"eta", "denoise"}
    assert folded("VC2FIFOSampler") == {"partitions", "window", "eta"}
    assert folded("VC2DDIM") == set()  # its only input
