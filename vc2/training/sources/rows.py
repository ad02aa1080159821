"""One row of a list: of a CSV, or a JSON object."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from .source import BrokenSample


def csv_row(text: str, columns: Sequence[str], name: str) -> dict[str, str]:
    """Its fields by column. Raises BrokenSample where they are not as many, or one is longer than Python's `csv` reads
    (131,072 characters).
    """
    try:
        fields = next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error as error:
        raise BrokenSample(f"{name} cannot be read: {error}") from error
    if len(fields) != len(columns):
        raise BrokenSample(f"{name} has {len(fields)} fields, expected {len(columns)}")
    return dict(zip(columns, fields, strict=True))


def json_row(text: str | bytes, name: str) -> dict[str, object]:
    """Raises BrokenSample where it is no JSON object, or nested deeper than Python reads."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenSample(f"{name} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BrokenSample(f"{name} is a {type(row).__name__}, expected a JSON object")
    return row
