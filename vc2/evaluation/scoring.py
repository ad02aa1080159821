"""Measuring one set: clip by clip, then what is of all clips together, then what is made of the others' means."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..files.video import read_clip
from ..metrics.metric import Clip, ClipMetric, Composite, CorpusMetric, Metric, NotApplicableError, file_hash
from . import controls
from .features import Features
from .rows import (
    GROUND_TRUTH,
    OK,
    Score,
    append_scores,
    by_key,
    current,
    digest,
    of_clips,
    of_truth,
    read_scores,
)
from .sets import ClipFile
from .suites import Prompt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A clip to measure, made of one that was read: itself, or a control."""

    name: str
    hash: str
    prompt_id: str | None
    seed: int | None
    prompt: str | None
    control: str | None
    made: Callable[[Clip], Clip]


@dataclass(frozen=True)
class Group:
    """What is made of one clip that is read once."""

    read: Callable[[], Clip]
    items: list[Item]


@dataclass(frozen=True)
class Tool:
    """A metric that can be used here, and what its rows say of it."""

    metric: Metric
    implementation: str
    weights: str | None
    preprocessing: str


@dataclass
class Scoring:
    """`prompts`: the suite's, by id; {} where none is known. `reference`: files of real clips. `frames`: how many the
    set's clips have, for ground truth of as many.
    """

    name: str
    clips: Sequence[ClipFile]
    prompts: Mapping[str, Prompt]
    out: Path
    reference: Sequence[Path] = ()
    controls: bool = True
    frames: int = 16
    outcomes: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._rows = by_key(read_scores(self.out))
        self._newest = {row.place: row for row in self._rows.values()}
        self._features = Features(self.out.with_name(f"{self.out.name}.features"))
        self._hashes = {clip.path: file_hash(clip.path) for clip in self.clips}

    def run(self, metrics: Sequence[Metric]) -> Counter[str]:
        """Write the rows that are missing; returns how many of all that are wanted are ok, skipped and failed."""
        tools = [tool for metric in metrics if (tool := self._tool(metric))]
        groups = list(self._groups())
        self._counts = Counter(item.control for group in groups for item in group.items)
        for group in tqdm(groups, desc=self.name, unit="clip", dynamic_ncols=True):
            self._measure(group, tools)
        corpora = [(tool, tool.metric) for tool in tools if isinstance(tool.metric, CorpusMetric)]
        # Any of the set's own variants is at most as many as its files.
        wanted = [(t, m) for t, m in corpora if not self._refusal(m, len(self.clips), len(self.reference))]
        self._look_at_reference([(tool, metric) for tool, metric in wanted if metric.needs_reference])
        items = [item for group in groups for item in group.items]
        for control in dict.fromkeys(item.control for item in items):
            for tool, corpus in corpora:
                self._corpus(tool, corpus, [item for item in items if item.control == control], control)
            for tool in tools:
                if isinstance(tool.metric, Composite):
                    self._composite(tool, tool.metric, control)
        return self.outcomes

    def _tool(self, metric: Metric) -> Tool | None:
        """None where the metric cannot be used here, which rows of the whole set then say, one for each measure."""
        reason = metric.available()
        status = f"skipped: {reason}"
        if reason is None:
            try:
                return Tool(metric, metric.implementation, metric.weights_hash, metric.preprocessing)
            except RuntimeError as error:  # an external program that does not start
                status = f"failed: {error}"
        unusable = Tool(metric, metric.name, None, "")
        for name in metric.measure_names():
            self._write([self._of_the_set(unusable, name, None, status, digest(self._hashes.values()), None)])
        return None

    # What is measured

    def _groups(self) -> Iterator[Group]:
        for clip in self.clips:
            file, prompt = self._hashes[clip.path], self.prompts.get(clip.prompt_id or "")
            item = partial(Item, clip.path.name, file, clip.prompt_id, clip.seed, prompt.prompt if prompt else None)
            items = [item(None, _same)]
            if self.controls:
                items.append(item("frozen", controls.frozen))
                items.append(item("shuffled", partial(controls.shuffled, clip_hash=file)))
            yield Group(partial(_read, clip.path, prompt.prompt if prompt else ""), items)
        asked = dict.fromkeys(clip.prompt_id for clip in self.clips if clip.prompt_id in self.prompts)
        for prompt in (self.prompts[name] for name in asked if name) if self.controls else ():
            if truth := controls.ground_truth(prompt, self.frames):
                shown = hashlib.sha256(truth.frames.tobytes()).hexdigest()
                drawn = Item(prompt.id, shown, prompt.id, None, prompt.prompt, GROUND_TRUTH, _same)
                yield Group(partial(_same, truth), [drawn])

    def _measure(self, group: Group, tools: Sequence[Tool]) -> None:
        """Everything of one clip and its controls that is not there yet."""
        pending = [(item, tool) for item in group.items for tool in tools if self._pending(item, tool)]
        if not pending:
            return
        try:
            clip = group.read()
        except OSError as error:
            for item, tool in pending:
                if isinstance(tool.metric, ClipMetric):
                    self._fail(item, tool, tool.metric, f"failed: {error}")
            log.warning("%s", error)
            return
        for item, some in groupby(pending, key=itemgetter(0)):
            made = item.made(clip)
            for _, tool in some:
                if isinstance(tool.metric, ClipMetric):
                    self._clip(item, tool, tool.metric, made)
                elif isinstance(tool.metric, CorpusMetric):
                    self._look(tool.metric, made, self._features_of(item.hash, item.control, tool))

    def _pending(self, item: Item, tool: Tool) -> bool:
        if isinstance(tool.metric, CorpusMetric):
            if self._refusal(tool.metric, self._counts[item.control], len(self.reference)):
                return False
            return not self._features_of(item.hash, item.control, tool).is_file()
        if not isinstance(tool.metric, ClipMetric):
            return False
        found = [self._rows.get(_of_a_clip(self.name, item, tool, name).key) for name in tool.metric.measure_names()]
        done = [row for row in found if row and _kind(row.status) != "failed"]
        if len(done) < len(found):
            return True
        self._write(done)
        return False

    def _clip(self, item: Item, tool: Tool, metric: ClipMetric, clip: Clip) -> None:
        try:
            values = metric.measure(clip)
        except NotApplicableError as error:
            self._fail(item, tool, metric, f"skipped: {error}")
            return
        except Exception as error:  # whatever a library says of a clip is said in that clip's row
            log.warning("%s of %s failed", metric.name, item.name, exc_info=True)
            self._fail(item, tool, metric, f"failed: {type(error).__name__}: {error}")
            return
        rows = []
        for name in metric.measure_names():
            value, status = values.get(name), OK
            if value is None:
                status = "skipped: the clip has no such number"
            elif not math.isfinite(value):
                value, status = None, f"failed: it came out as {value}"
            rows.append(_of_a_clip(self.name, item, tool, name, value, status))
        self._write(rows)

    def _fail(self, item: Item, tool: Tool, metric: ClipMetric, status: str) -> None:
        self._write([_of_a_clip(self.name, item, tool, name, None, status) for name in metric.measure_names()])

    # What is of all clips together

    def _features_of(self, clip_hash: str, control: str | None, tool: Tool) -> Path:
        assert isinstance(tool.metric, CorpusMetric)
        how = (tool.metric.extractor, tool.implementation, tool.weights, tool.preprocessing)
        return self._features.path(clip_hash, control, *how)

    def _refusal(self, metric: CorpusMetric, clips: int, reference: int) -> str | None:
        """Why so many clips do not make a number."""
        least = f"of at least {metric.least} clips that it takes"
        if metric.needs_reference and not self.reference:
            return "skipped: it needs --reference"
        if clips < metric.least:
            return f"skipped: {clips} {least}"
        if metric.needs_reference and reference < metric.least:
            return f"skipped: the reference has {reference} {least}"
        return None

    def _look(self, metric: CorpusMetric, clip: Clip, path: Path) -> None:
        if path.is_file():  # another metric of the same extractor was here
            return
        try:
            self._features.save(path, metric.features(clip))
        except NotApplicableError as error:
            log.info("%s leaves out %s: %s", metric.name, clip.path, error)
        except Exception:  # a clip that a library cannot look at is left out, and `n` tells
            log.warning("%s leaves out %s", metric.name, clip.path, exc_info=True)

    def _look_at_reference(self, corpora: Sequence[tuple[Tool, CorpusMetric]]) -> None:
        for path in tqdm(self.reference if corpora else (), desc="reference", unit="clip", dynamic_ncols=True):
            targets = [(tool, metric, self._features_of(file_hash(path), None, tool)) for tool, metric in corpora]
            if all(target.is_file() for _, _, target in targets):
                continue
            try:
                clip = _read(path, "")
            except OSError as error:
                log.warning("the reference goes without a clip: %s", error)
                continue
            for _, metric, target in targets:
                self._look(metric, clip, target)

    def _corpus(self, tool: Tool, metric: CorpusMetric, items: Sequence[Item], control: str | None) -> None:
        reference = self.reference if metric.needs_reference else ()
        paths = [self._features_of(item.hash, control, tool) for item in items]
        theirs = [self._features_of(file_hash(path), None, tool) for path in reference]
        paths, theirs = ([path for path in some if path.is_file()] for some in (paths, theirs))
        of, against = digest(item.hash for item in items), None
        if reference:
            hashed = digest(file_hash(path) for path in reference)
            against = f"{reference[0].resolve().parent.name}, {len(theirs)} of {len(reference)} clips, {hashed[:12]}"
        # There may be too few, or too few that could be looked at.
        refused = self._refusal(metric, len(items), len(reference)) or self._refusal(metric, len(paths), len(theirs))
        status, values = refused or OK, dict[str, float]()
        if not refused:
            names = metric.measure_names()
            found = [self._rows.get(self._of_the_set(tool, n, None, "", of, control, None, against).key) for n in names]
            done = [row for row in found if row and row.status == OK and row.n == len(paths)]
            if len(done) == len(found):
                self._write(done)
                return
            load = self._features.load
            values = dict(metric.measure([load(path) for path in paths], [load(path) for path in theirs]))
        self._write(
            [
                self._of_the_set(tool, name, values.get(name), status, of, control, len(paths), against)
                for name in metric.measure_names()
            ]
        )

    def _composite(self, tool: Tool, metric: Composite, control: str | None) -> None:
        """From the rows that count, of the set's present clips alone."""
        values: dict[str, list[float]] = {name: [] for name in metric.parts}
        counts = Counter[str]()
        whole = digest(self._hashes.values())
        mine = [row for row in self._rows.values() if (row.set, row.control) == (self.name, control)]
        if control == GROUND_TRUTH:
            mine = of_truth(mine, {clip.prompt_id for clip in self.clips})
        else:
            mine = of_clips(mine, {path.name: found for path, found in self._hashes.items()})
        for row in current(mine):
            if row.value is not None and row.metric in values:
                values[row.metric].append(row.value)
                counts[row.metric] += row.n or 1
        missing = [name for name, some in values.items() if not some]
        means = {name: float(np.mean(some)) for name, some in values.items() if some}
        status = f"skipped: {', '.join(missing)} not measured" if missing else OK
        made = {} if missing else metric.measure(means)
        count = min(counts[name] for name in metric.parts)
        self._write(
            [
                self._of_the_set(tool, name, made.get(name), status, whole, control, count)
                for name in metric.measure_names()
            ]
        )

    # Rows

    def _of_the_set(
        self,
        tool: Tool,
        name: str,
        value: float | None,
        status: str,
        of: str,
        control: str | None,
        n: int | None = None,
        reference: str | None = None,
    ) -> Score:
        how = (tool.implementation, tool.weights, tool.preprocessing)
        return Score(self.name, None, of, None, None, name, value, status, *how, control, n, reference=reference)

    def _write(self, rows: Sequence[Score]) -> None:
        """Those that say something new, or again what others have overtaken."""
        self.outcomes.update(_kind(row.status) for row in rows)
        new = [row for row in rows if self._newest.get(row.place) != row]
        if new:
            append_scores(self.out, new)
            for row in new:
                self._rows.pop(row.key, None)
                self._rows[row.key] = self._newest[row.place] = row


def _of_a_clip(
    name: str, item: Item, tool: Tool, measure: str, value: float | None = None, status: str = "skipped: not yet"
) -> Score:
    how = (tool.implementation, tool.weights, tool.preprocessing)
    clip = (item.name, item.hash, item.prompt_id, item.seed)
    return Score(name, *clip, measure, value, status, *how, item.control, prompt=item.prompt)


def _kind(status: str) -> str:
    return status.partition(":")[0]


def _read(path: Path, prompt: str) -> Clip:
    return Clip(*read_clip(path), prompt, path)


def _same(clip: Clip) -> Clip:
    return clip
