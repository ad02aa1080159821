"""A report once more from the rows in its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .clips import Strip, choose
from .material import Material
from .render import HTML, render, sources, without_pictures


def regenerate(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What the files would hold, the clips' pictures apart, and the page as it is without them. Raises ValueError
    where other clips are shown than the rows choose, OSError.
    """
    material = Material.load(folder)
    chosen = [one.tree() for one in choose(material)]
    for shown, wanted in zip(material.shown, chosen, strict=False):
        if shown != wanted:
            raise ValueError(f"{folder}: it shows {shown}, and the rows choose {wanted}")
    if len(material.shown) != len(chosen):
        raise ValueError(f"{folder}: it shows {len(material.shown)} clips, and the rows choose {len(chosen)}")
    there = (folder / HTML).read_text(encoding="utf-8")
    hashes = {hashlib.sha256(source.encode()).hexdigest() for source in sources(there)}
    for shown, picture in zip(material.shown, material.pictures, strict=True):
        if picture["src"] not in hashes:
            raise ValueError(f"{folder / HTML}: the picture of {shown['set']}, {shown['clip']} is another")
    strips = [Strip(**{**picture, "src": ""}) for picture in material.pictures]
    return render(material, strips), {HTML: without_pictures(there)}
