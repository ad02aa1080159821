"""Pictures of any shape, lists of them, and the recipes by which tests read them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vc2.training.data.batches import load_batches
from vc2.training.data.mixture import stream_of
from vc2.training.recipe import Recipe

SMALL = {"width": 64, "height": 64, "workers": 0, "held_out": 0, "caption_dropout": 0.0}
BUCKETS = [[96, 48], [48, 96]]
ROWS = [
    {"path": f"{name}.png", "caption": caption, "width": width, "height": 48, "pwatermark": mark, "aesthetic": score}
    for name, caption, width, mark, score in (
        ("a", 'a "quoted" cat,\nwith a line', 64, 0.1, 6.5),
        ("b", "b", 640, 0.9, 6.5),
        ("c", "c", 640, 0.2, None),
        ("d", "", 640, 0.2, 5.0),
        ("e", "e", 640, 0.2, 5.0),
        ("f", "f", 40, 0.2, 5.0),
    )
]


def images(source, steps: int = 1000, batch: int = 4, **data) -> Recipe:
    tree = {"name": "data", "steps": steps, "batch": batch, "data": {**SMALL, "images": source, **data}}
    return Recipe.model_validate(tree)


def ramp(width: int, height: int) -> np.ndarray:
    """Dark on the left and bright on the right."""
    row = np.linspace(20, 220, width).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def photos(folder: Path, name: str, sizes: list[tuple[int, int]]) -> dict[str, str]:
    """Pictures with captions; returns their source."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, (width, height) in enumerate(sizes):
        Image.fromarray(ramp(width, height)).save(folder / f"{name}{n:02d}.png")
        (folder / f"{name}{n:02d}.txt").write_text(f"{name} {n}")
    return {"kind": "folder", "path": str(folder)}


def write_manifest(path: Path, rows: list[dict] = ROWS) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


def read(recipe: Recipe, cache: Path, start: int = 0, rank: int = 0, world: int = 1):
    streams = {"images": stream_of(recipe, "images", cache)}
    return list(load_batches(recipe, streams, start, rank, world, pin=False))


def captions(batches) -> list[str]:
    return [caption for batch in batches for caption in batch.captions]
