"""What an unknown key of a recipe was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def did_you_mean(key: str, keys: Collection[str]) -> str:
    """ "did you mean optimizer.lr? (the keys of optimizer are kind, lr, ...)" for a dotted key that is none of `keys`.

    Those of its name in other sections, else the nearest in its own, or of all where there is no such section.
    """
    section, leaf = _split(key)
    beside = {_split(known)[1]: known for known in keys if _split(known)[0] == section}
    near = [known for known in keys if _split(known)[1] == leaf]
    near = near or [beside[name] for name in difflib.get_close_matches(leaf, beside, 1, cutoff=0.5)]
    if not beside:
        near = near or difflib.get_close_matches(key, keys, 1, cutoff=0.5)
        section, beside = "", {known: known for known in keys if "." not in known}
    listing = f"the keys of {section or 'a recipe'} are {', '.join(beside)}"
    return f"did you mean {' or '.join(near)}? ({listing})" if near else listing


def _split(key: str) -> tuple[str, str]:
    section, _, leaf = key.rpartition(".")
    return section, leaf
