"""MSR-VTT's test captions, from the user's own copy: 2,990 clips with twenty captions each."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import itemgetter
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
    """The first caption of every clip, then the second ones: a suite's first prompts are of as many clips."""
    seen: Counter[str] = Counter()
    numbered = []
    for video, caption in rows:
        numbered.append((seen[video], f"{video}-{seen[video]}", caption))
        seen[video] += 1
    for _, name, caption in sorted(numbered, key=itemgetter(0)):
        yield name, caption
