"""MSR-VTT's test captions, from the user's own copy: 2,990 clips with twenty captions each."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path


def captions(path: Path) -> Iterator[tuple[str, str]]:
    """(id, caption) of the test split of a `*_videodatainfo.json`: `video7010-3` is that clip's fourth caption."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    test = {video["video_id"] for video in tree["videos"] if video.get("split", "test") == "test"}
    return _numbered((row["video_id"], row["caption"]) for row in tree["sentences"] if row["video_id"] in test)


def table(path: Path) -> Iterator[tuple[str, str]]:
    """(id, caption) of a CSV with the columns `video_id` and `sentence` (or `caption`)."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        caption = next((name for name in ("sentence", "caption") if name in columns), None)
        if "video_id" not in columns or caption is None:
            raise ValueError(f"expected the columns video_id and sentence, found {', '.join(columns)}")
        yield from _numbered([(row["video_id"], row[caption]) for row in reader])


def _numbered(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    seen: Counter[str] = Counter()
    for video, caption in rows:
        yield f"{video}-{seen[video]}", caption
        seen[video] += 1
