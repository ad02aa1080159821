"""The workflows' titles and notes in other languages, which web/translate.js shows where ComfyUI is set to one."""

from __future__ import annotations

import json
from typing import Any

from .comfyui import ROOT


def translations(name: str, nodes: list[dict[str, Any]], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each language that has them in locales/: the note, and the titles of nodes and of groups by id.

    Raises KeyError for a title or a note that a language lacks.
    """
    languages = {}
    for path in sorted((ROOT / "locales").glob("*/workflows.json")):
        words = json.loads(path.read_text(encoding="utf-8"))
        note = words["notes"][name]
        for phrase in ("{NEEDS_MODEL}", "{MODEL}", "{WITHOUT}"):  # the first holds the others
            note = note.replace(phrase, words[phrase])
        languages[path.parent.name] = {
            "note": note,
            "titles": {str(node["id"]): words["titles"][node["title"]] for node in nodes if "title" in node},
            "groups": {str(group["id"]): words["groups"][group["title"]] for group in groups},
        }
    return languages
