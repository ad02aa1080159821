"""`make bench-gpu`, tried without a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu, performance_report
from bench.tables import NOT_MEASURED

ROOT = Path(__file__).parent.parent


def test_all_of_it_fits_into_eight_minutes():
    assert sum(need for need, _ in gpu.STAGES.values()) < gpu.LIMIT
    assert gpu.LIMIT + gpu.GRACE < 8 * 60


def test_each_goal_has_a_stage():
    assert set(gpu.STAGES) == set(performance_report.GOALS)


def test_what_is_not_measured_does_not_replace_what_was(tmp_path):
    path = tmp_path / "goals.json"

    def kept_after(found: str) -> str:
        gpu.remember(path, {"what": "another", "found": "1.0", "note": ""}, {})
        gpu.remember(path, {"what": "guided step", "found": found, "note": ""}, {})
        return {row["what"]: row["found"] for row in json.loads(path.read_text())["rows"]}["guided step"]

    assert [kept_after(found) for found in (NOT_MEASURED, "70 ms", NOT_MEASURED, "64 ms")] == [
        NOT_MEASURED,
        "70 ms",
        "70 ms",
        "64 ms",
    ]


def begin(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.gpu", "--tiny", "--out", str(out), *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def goals(out: Path) -> list[dict[str, str]]:
    return json.loads((out / "performance" / "goals.json").read_text())["rows"]


@pytest.mark.slow
def test_every_stage_does_its_work_with_small_networks(tmp_path):
    with begin(tmp_path, "--limit", "1800") as bench:
        assert bench.wait() == 0
    rows = {row["what"]: row for row in goals(tmp_path)}
    assert list(rows) == list(gpu.STAGES)
    missing = {what: row["note"] for what, row in rows.items() if row["found"] == "not measured"}
    assert set(missing.values()) == {"NotImplementedError: no GPU"}
    assert all("peak" in what for what in missing)
    report = (tmp_path / "performance.md").read_text()
    assert all(f"| {what} |" in report for what in rows)


@pytest.mark.slow
def test_ctrl_c_leaves_what_was_measured(tmp_path):
    with begin(tmp_path) as bench:
        first = bench.stdout.readline()
        bench.send_signal(signal.SIGINT)
        bench.communicate()
    assert "guided step" in first
    assert bench.returncode == 1
    assert goals(tmp_path)[0]["what"] in first
    assert goals(tmp_path)[0]["found"] in (tmp_path / "performance.md").read_text()
