"""What people read: every input has a tooltip, every node a help page, and the translations name what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts.english_words import words_of

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def ours(client):
    return {
        name: info
        for name, info in client.object_info().items()
        if info["python_module"].endswith("comfyui-videocrafter2")
    }


def inputs(info):
    return {name: spec[1] for kind in ("required", "optional") for name, spec in info["input"].get(kind, {}).items()}


def test_every_input_has_a_tooltip_and_every_node_a_description(ours):
    assert len(ours) == 17
    for name, info in ours.items():
        assert info["description"], name
        assert info["category"].startswith("VideoCrafter2/"), name
        assert all(options.get("tooltip") for options in inputs(info).values()), name


def test_every_node_has_a_help_page(ours):
    for name in ours:
        pages = ROOT / "web" / "docs"
        assert (pages / f"{name}.md").read_text().startswith(f"# {ours[name]['display_name']}")
        assert (pages / name / "zh.md").read_text().startswith("# ")


def values_of(path):
    """A locale's texts, without the ids that they stand under."""

    def texts(value):
        return "\n".join(map(texts, value.values())) if isinstance(value, dict) else value

    return texts(json.loads(path.read_text(encoding="utf-8")))


def test_words_name_nodes_as_the_canvas_does(ours):
    """By the titles that people see: ids are nowhere on the canvas."""
    texts = {
        f"{name}, {key}": options["tooltip"] for name, info in ours.items() for key, options in inputs(info).items()
    }
    texts |= {name: info["description"] for name, info in ours.items()}
    texts |= {f"{name}, output": text or "" for name, info in ours.items() for text in info["output_tooltips"] or []}
    pages = ROOT / "web" / "docs"
    texts |= {str(page): page.read_text(encoding="utf-8") for page in pages.rglob("*.md")}
    texts |= {f"{path}": values_of(path) for path in (ROOT / "locales").rglob("*.json")}
    named = {where: re.findall(r"VC2[A-Z]\w+", text) for where, text in texts.items()}
    assert {where: ids for where, ids in named.items() if ids} == {}


def test_a_name_in_italics_is_a_node_s(client, ours):
    """Help pages name our nodes by titles that exist."""
    titles = {info["display_name"] for info in ours.values()}
    for page in (ROOT / "web" / "docs").glob("*.md"):
        named = set(re.findall(r"\*((?:Load |Empty |Save |Compare )?[\w ]*Video[\w() ]*)\*", page.read_text()))
        assert named <= titles, page.name


def test_the_chinese_pages_are_headed_as_the_nodes_are(ours):
    words = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name in ours:
        page = (ROOT / "web" / "docs" / name / "zh.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {words[name]['display_name']}\n")
    titles = {entry["display_name"] for entry in words.values()}
    quoted = set(re.findall("“([^”]*VideoCrafter[^”]*)”", values_of(ROOT / "locales" / "zh" / "nodeDefs.json")))
    assert quoted
    assert quoted <= titles


def test_the_two_rates_have_two_labels(ours):
    """What moves, and how fast it is played."""
    motion, playback = (inputs(ours[name])["fps"]["display_name"] for name in ("VC2VideoConditioning", "VC2SaveVideo"))
    assert (motion, playback) == ("motion fps", "playback fps")


def test_the_english_words_are_the_nodes_own(ours):
    assert json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text()) == words_of(ours), (
        "run `python -m scripts.english_words`"
    )


@pytest.mark.parametrize("language", sorted(p.name for p in (ROOT / "locales").iterdir()))
def test_translations_are_complete(ours, language):
    words = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert words.keys() == ours.keys()
    for name, info in ours.items():
        assert words[name]["display_name"]
        assert words[name]["description"]
        assert words[name]["inputs"].keys() == inputs(info).keys(), name
        assert all(entry["name"] and entry["tooltip"] for entry in words[name]["inputs"].values())
        assert len(words[name].get("outputs", {})) == len(info["output"])
