"""What a pack does that is at home in the front end: templates, missing weights, the app, names of files."""

from __future__ import annotations

from scripts.graph import DOWNLOADS, OFFICIAL
from scripts.graphs import FOLDER, QUICKSTART, WORKFLOWS

TEMPLATES = {name for name in WORKFLOWS if "/" not in name}
NAMES_THE_MODEL = [name for name in WORKFLOWS if name != QUICKSTART]


def test_a_search_finds_the_templates(canvas, request):
    assert canvas.search_templates("videocrafter") == TEMPLATES
    canvas.page.wait_for_timeout(1000)  # the thumbnails
    canvas.page.screenshot(path=canvas.artefact(f"templates-{request.node.callspec.id}"))
    assert canvas.errors == []


def test_missing_weights_are_named_with_folder_and_address(classic, tmp_path):
    """Of every graph that needs them: the front end offers a download, or says where to get the file."""
    folder, url = DOWNLOADS[OFFICIAL]
    absent = "absent.ckpt"  # other tests put a stand-in where the official file belongs
    for name in NAMES_THE_MODEL:
        path = tmp_path / f"{name.split('/')[-1]}.json"
        path.write_text((FOLDER / f"{name}.json").read_text().replace(OFFICIAL, absent))
        classic.clear()
        classic.drop(path)
        missing = {"name": absent, "directory": folder, "url": url.replace(OFFICIAL, absent)}
        assert missing in classic.missing_models(), name
    classic.page.screenshot(path=classic.artefact("missing-weights"))
    assert classic.errors == []
