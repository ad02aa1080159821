"""All metrics by name."""

from __future__ import annotations

from collections.abc import Iterable

from .metric import Measure, Metric
from .sharpness import Sharpness

METRICS: dict[str, Metric] = {metric.name: metric for metric in (Sharpness(),)}


def chosen(names: Iterable[str]) -> list[Metric]:
    """Metrics by their names, or by those of their measures, each once. Raises ValueError for an unknown name."""
    picked: dict[str, Metric] = {}
    for name in names:
        metric = metric_of(name)
        if metric is None:
            raise ValueError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
        picked[metric.name] = metric
    return list(picked.values())


def metric_of(name: str) -> Metric | None:
    """The metric of that name, or the one that has a measure of that name (a row's `metric`)."""
    if name in METRICS:
        return METRICS[name]
    for metric in METRICS.values():
        if any(measure.name == name for measure in metric.measures):
            return metric
    # What an external program measures is known by its first part alone.
    return METRICS.get(name.partition(".")[0])


def measure_of(name: str) -> Measure | None:
    """The measure of a row, where it is known."""
    metric = metric_of(name)
    return next((m for m in metric.measures if m.name == name), None) if metric else None
