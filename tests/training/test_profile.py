"""Where the time of a step goes: all of it is told, by its parts, and nothing of a run is touched."""

from __future__ import annotations

import gzip
import json
import re
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from tests.training.runs import say
from vc2.training import profile
from vc2.training.diffusion import DiffusionObjective
from vc2.training.loop import Trainer


def test_the_table_adds_up_and_the_trace_opens(recipe, recipe_file, folder, capsys, monkeypatch):
    Trainer(recipe(), folder).save()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    path = recipe_file(optimizer={"lr": 1.0})  # another than the run's: it does not go on
    opened, real = [], DiffusionObjective.batches
    monkeypatch.setattr(DiffusionObjective, "batches", lambda *args: opened.append(real(*args)) or opened[-1])
    code, out, _ = say(capsys, "profile", path, "--runs", folder.parent, "--steps", 2)
    assert code == 0
    assert before == {path: path.read_bytes() for path in before}
    assert [batches.gi_frame for batches in opened] == [None]  # closed, and so are the readers behind it
    whole = float(re.search(r"small: ([\d,.]+) ms a step of 2 on 1, the mean of 2", out)[1].replace(",", ""))
    rows = {m[1]: float(m[2]) for m in re.finditer(r"^(\w[\w ]+?) {2,}([\d.]+) +\d+%", out, re.MULTILINE)}
    parts = {*profile.PARTS, "the rest"} - {"teacher", "target"}  # which only the consistency objective has
    assert rows.keys() == parts
    assert sum(rows.values()) == pytest.approx(whole, abs=1)
    assert rows["network"] > 0
    assert rows["backward"] > 0
    assert "device" not in out
    assert (folder / "profile" / "table.txt").read_text().startswith("small: ")
    trace = json.loads(gzip.decompress((folder / "profile" / "trace.json.gz").read_bytes()))
    named = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    assert named.count("step") == named.count("backward") == 2
    code, _, err = say(capsys, "profile", path, "--runs", folder.parent, "--steps", 5)
    assert (code, "--steps 5: expected 1 to 4, the recipe's less 2" in err) == (2, True)
    code, _, err = say(capsys, "profile", path, "--runs", folder.parent, "steps=2")
    assert (code, "steps 2: a profile needs more than the 2 that warm up" in err) == (2, True)


def event(name: str, start: float, end: float, *kernels: float) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        device_type=DeviceType.CPU,
        kernels=[SimpleNamespace(duration=duration) for duration in kernels],
    )


def test_kernels_belong_to_the_part_in_which_they_were_launched():
    """Also those of the backward pass, which a thread of its own launches; and of the innermost part."""
    events = [
        event("step", 0, 100e6),
        event("wait for data", 0, 10e6),
        event("loss", 10e6, 50e6),
        event("network", 20e6, 40e6),
        event("conv", 25e6, 26e6, 3e6, 4e6),
        event("mse", 45e6, 46e6, 1e6),
        event("backward", 50e6, 90e6),
        event("conv_backward", 60e6, 61e6, 9e6),
        event("copy", 95e6, 96e6, 2e6),
        event("outside", 120e6, 121e6, 5e6),
    ]
    host, device = profile.seconds(events)
    assert host == {
        "step": 100,
        "wait for data": 10,
        "loss": 20,
        "network": 20,
        "backward": 40,
    }
    assert device == {"network": 7, "loss": 1, "backward": 9, "step": 2}
    lines = list(profile.table(events, 1, SimpleNamespace(name="x", batch=2), 1))
    assert lines[-1] == "the device was busy for 19% of the time"
    assert any(re.match(r"the rest +10000\.0 +10% +2000\.0", line) for line in lines)
