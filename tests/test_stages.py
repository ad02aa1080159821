"""A bench's stages end in time, whatever they do; they leave nothing running and the others what is theirs."""

from __future__ import annotations

import contextlib
import time

import psutil

from bench.stages import PATIENCE, stages
from tests.fake_stages import counts, dies, fails, hangs, shows

MUCH = 1000


def found(rows) -> dict[str, tuple[str, str]]:
    return {row["what"]: (row["found"], row["note"]) for row in rows}


def gone(pid: int) -> bool:
    """Whether it is, or soon will be."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process, deadline = psutil.Process(pid), time.monotonic() + 30
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    return True


def test_one_that_is_late_is_stopped_with_what_it_started_and_the_next_one_runs(tmp_path):
    pids = tmp_path / "pids"
    todo = {"late": (1, hangs), "next": (20, shows), "too long": (MUCH, shows)}
    rows = found(stages(todo, pids, time.monotonic() + 60))
    assert rows["late"] == ("not measured", f"stopped after {PATIENCE} s")
    assert rows["next"] == (str(pids), "")
    what, note = rows["too long"]
    assert what == "not measured"
    assert note.endswith(f"s were left, and it needs about {MUCH}")
    for pid in pids.read_text().split():
        assert gone(int(pid))


def test_none_goes_on_beyond_the_end(tmp_path):
    rows = found(stages({"late": (2, hangs), "none": (2, shows)}, tmp_path / "pids", time.monotonic() + 3))
    assert rows["late"][1] in {f"stopped after {n} s" for n in range(4)}  # 6 by what it needs
    assert rows["none"][1].startswith("0 s were left")


def test_what_one_leaves_in_the_state_the_next_finds_unless_the_process_ended():
    todo = {"one": counts, "fails": fails, "two": counts, "dies": dies, "anew": counts}
    rows = found(stages({what: (20, stage) for what, stage in todo.items()}, [], time.monotonic() + 300))
    assert rows == {
        "one": ("1", ""),
        "fails": ("not measured", "ValueError: no such card"),
        "two": ("2", ""),
        "dies": ("not measured", "its process ended with status 7"),
        "anew": ("1", ""),
    }


def test_whoever_stops_listening_leaves_nothing_running():
    before = set(psutil.Process().children())
    rows = stages({"one": (20, counts), "two": (20, counts)}, [], time.monotonic() + 300)
    next(rows)
    (begun,) = (c for c in set(psutil.Process().children()) - before if "spawn_main" in " ".join(c.cmdline()))
    rows.close()
    assert gone(begun.pid)
