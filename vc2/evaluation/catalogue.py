"""`list` and `doctor`: which metrics there are, and which of them can be computed here."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator

from ..metrics.external import External
from ..metrics.metric import WEIGHTS, Composite, CorpusMetric, Metric
from ..metrics.registry import METRICS, metric_of

BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": "neither way is better"}


def catalogue() -> Iterator[str]:
    """Every metric, what is to be known of it, a line each."""
    for metric in METRICS.values():
        yield metric.name
        yield from (f"    {m.name}: {m.about} ({BETTER[m.better]})" for m in metric.measures)
        library = ", ".join(metric.library) or "none but this package"
        facts = {
            "used in": metric.table,
            "of": _kind(metric),
            "library": f"{library}; {metric.licence}",
            "file": metric.file,
            "frames": "the program's own" if isinstance(metric, External) else metric.preprocessing,
            "beware": metric.warning,
        }
        for name, text in facts.items():
            if text:
                yield from textwrap.wrap(f"{name}: {text}", 116, initial_indent="    ", subsequent_indent="        ")
        yield ""


def _kind(metric: Metric) -> str:
    if isinstance(metric, CorpusMetric):
        against = " and as many of a --reference" if metric.needs_reference else ""
        return f"a set of {metric.least} clips or more{against}"
    return "a clip" if metric.kind == "clip" else "a set, from the means of others"


def _lacking(metric: Metric) -> str | None:
    """Why it cannot be computed here; what is made of others takes them all."""
    if not isinstance(metric, Composite):
        return metric.available()
    parts = [part for part in metric.parts if (of := metric_of(part)) is None or of.available()]
    return f"{', '.join(parts)} cannot be computed" if parts else None


def doctor() -> Iterator[str]:
    """A table: found or not, and what to do."""
    folder = os.environ.get(WEIGHTS)
    yield f"folder of weights: {folder}" if folder else f"folder of weights: none (--weights, or {WEIGHTS})"
    yield ""
    width = max(map(len, METRICS))
    ready = 0
    for metric in METRICS.values():
        why = _lacking(metric)
        ready += why is None
        yield f"{metric.name:{width}}  {'found' if why is None else 'not found: ' + why}"
    yield ""
    yield f"{ready} of {len(METRICS)} can be computed here. Nothing is ever downloaded."
