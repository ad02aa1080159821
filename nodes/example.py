"""The clip that the template Video to Video opens on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

log = logging.getLogger(__name__)

CLIP = Path(__file__).parent.parent / "workflows" / "videocrafter2_example.mp4"


def offer_example() -> None:
    """Put the clip among the user's input files, which is the only place that Load Video looks in."""
    target = Path(folder_paths.get_input_directory()) / CLIP.name
    if target.exists() or not CLIP.exists():
        return
    try:
        shutil.copy(CLIP, target)
    except OSError as error:
        log.info("the example clip of Video to Video was not put into %s: %s", target.parent, error)
