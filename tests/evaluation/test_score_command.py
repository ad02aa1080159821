"""`score`, `list` and `doctor` as a user runs them."""

from __future__ import annotations

import pytest

from tests.evaluation.scoring import PROMPTS
from vc2.evaluation.__main__ import main
from vc2.evaluation.rows import read_scores
from vc2.metrics.registry import METRICS


def test_the_command_on_another_models_clips(clips, tmp_path, caplog):
    (clips / "unknown.mp4").write_bytes((clips / f"{next(iter(PROMPTS))}-0.mp4").read_bytes())
    out = tmp_path / "all.jsonl"
    command = ["score", str(clips), "--suite", "miniature", "--metrics", "noise,fvd", "-o", str(out), "--no-controls"]
    assert main(command) == 0
    assert "no prompt of miniature goes with unknown.mp4" in caplog.text
    found = read_scores(out)
    assert {row.set for row in found} == {"other model"}
    assert [(row.metric, row.clip is None, row.status[:30]) for row in found if row.status != "ok"] == [
        ("fvd", True, "skipped: needs i3d_torchscript"),
    ]
    assert sum(row.metric == "noise" for row in found) == 4
    assert main([*command, "--strict"]) == 1
    assert main(["score", str(clips), "--metrics", "noise", "-o", str(out), "--no-controls", "--strict"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "nowhere"], "nowhere: no such folder of clips"),
        (["score", ".", "--metrics", "beauty"], "there is no metric 'beauty'; there are sharpness"),
        (["score", ".", ".", "--name", "x"], "--name is of one set"),
        (["score", ".", "--weights", "nowhere"], "no such folder"),
        (["doctor", "--weights", "nowhere"], "no such folder"),
        (["generate", "-o", "x", "--seeds", "0"], "--seeds must be at least 1"),
        (["generate", "-o", "x", "--suite", "nowhere"], "no such suite"),
        (["generate", "-o", "x", "--checkpoint", "nowhere"], "no such checkpoint"),
    ],
)
def test_what_the_user_can_put_right(arguments, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_list_and_doctor_know_every_metric(capsys, weights):
    (weights / "i3d_torchscript.pt").touch()
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n    {name}: " in listed for metric in METRICS.values() for name in metric.measure_names())
    assert "supplement's Table 1 (MSR-VTT" in listed
    assert "a frozen clip has the best" in listed
    assert main(["doctor"]) == 0
    table = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "not found" not in table["fvd"]
    assert "not found: ViT-B-32.pt not in" in table["clip"]
    assert set(METRICS) <= set(table)
    # What is made of others is as little there as these.
    assert "raft_warping_error" in table["evalcrafter_compat.temporal"].partition("not found: ")[2]


def test_a_library_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = METRICS["flow"].available()
    assert reason == "opencv-python-headless not installed (pip install comfyui-videocrafter2[evaluation-extra])"
