"""What a pack does that is at home in the front end: templates, missing weights, the app, names of files."""

from __future__ import annotations

import pytest

from scripts.graph import DOWNLOADS, OFFICIAL
from scripts.graphs import FOLDER, QUICKSTART, WORKFLOWS


def test_a_search_finds_the_templates(canvas, request):
    found = canvas.search_templates("videocrafter")
    assert found == {name for name in WORKFLOWS if "/" not in name}
    canvas.page.wait_for_timeout(1000)  # the thumbnails
    canvas.page.screenshot(path=canvas.artefact(f"templates-{request.node.callspec.id}"))
    assert canvas.errors == []


NAMES_THE_MODEL = [name for name in WORKFLOWS if name != QUICKSTART]


@pytest.mark.parametrize("name", NAMES_THE_MODEL)
def test_missing_weights_are_named_with_folder_and_address(classic, name):
    """The front end downloads safetensors only; of the official .ckpt it tells what it is and where to get it."""
    folder, url = DOWNLOADS[OFFICIAL]
    classic.drop(FOLDER / f"{name}.json")
    assert (OFFICIAL, folder, url) in classic.missing_models()
    classic.page.screenshot(path=classic.artefact(f"missing-{name.split('/')[-1]}"))
    assert classic.errors == []
