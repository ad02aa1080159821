"""Programs of users as metrics: what they are asked, and what is said where they answer wrongly or end."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from vc2.files.video import read_video, write_video
from vc2.metrics.external import External
from vc2.metrics.registry import METRICS

ADAPTER = """
import json, pathlib, sys
print(json.dumps({"implementation": "Fake 1.0", "weights": "abc", "preprocessing": "none"}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    size = pathlib.Path(asked["clip"]).stat().st_size
    if "broken" in asked["prompt"]:
        print(json.dumps({"error": "cannot open it"}), flush=True)
    elif "other" in asked["prompt"]:
        print(json.dumps({"values": {"beauty": 1.0}}), flush=True)
    elif "nan" in asked["prompt"]:
        print('{"values": {"dover.technical": NaN}}', flush=True)
    elif "end" in asked["prompt"]:
        sys.exit(3)
    elif "noise" in asked["prompt"]:
        print("loading ...", flush=True)
    else:
        print(json.dumps({"values": {"dover.technical": float(size > 0) + len(asked["prompt"])}}), flush=True)
pathlib.Path(sys.argv[1]).touch()
"""


@pytest.fixture
def dover(weights, tmp_path):
    known = METRICS["dover"]
    metric = External(known.name, known.measures, known.licence)
    assert "no command for dover" in metric.available()
    (tmp_path / "adapter.py").write_text(ADAPTER)
    command = [sys.executable, str(tmp_path / "adapter.py"), str(tmp_path / "ended")]
    (weights / "external.json").write_text(json.dumps({"dover": command}))
    yield metric
    metric.close()


def test_a_program_is_started_once_and_asked_clip_by_clip(dover, bikes, tmp_path):
    assert dover.available() is None
    assert dover.implementation == "Fake 1.0 (dover of external.json)"
    assert dover.weights_hash == "abc"
    assert dover.preprocessing == "none"
    path = write_video(tmp_path / "clip.mp4", list(bikes.frames), 10)
    process, _ = dover._program
    assert dover.measure(replace(bikes, path=path, prompt="a cat")) == {"dover.technical": 6}
    assert dover.measure(replace(bikes, prompt="")) == {"dover.technical": 1}  # a control: it is written for it
    assert dover._program[0] is process
    dover.close()
    assert (tmp_path / "ended").is_file()
    assert dover.measure(replace(bikes, path=path, prompt="abc")) == {"dover.technical": 4}


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("broken", "cannot open it"),
        ("other", "expected values of dover.technical"),
        ("nan", "expected finite numbers"),
        ("noise", "must answer with a JSON object a line, found 'loading"),
        ("end", "ended with status 3"),
    ],
)
def test_wrong_answers_are_told(dover, bikes, prompt, says):
    with pytest.raises(RuntimeError, match=says):
        dover.measure(replace(bikes, frames=bikes.frames[:2], prompt=prompt))


def test_the_file_of_commands(dover, weights):
    (weights / "external.json").write_text('{"dover": "python adapter.py"}')
    assert 'must be a list such as ["python", "adapter.py"]' in dover.available()
    (weights / "external.json").write_text('{"dover": ["/no/such/program"]}')
    assert "is no program" in dover.available()
    (weights / "external.json").write_text("[1")
    assert "must be a JSON object of commands" in dover.available()


def test_a_control_reaches_the_program_as_it_is(dover, bikes, tmp_path, monkeypatch):
    """Nearly: mp4 has chroma at half the size."""
    written = []

    def keep(path, frames, fps, **how):
        write_video(path, frames, fps, **how)
        written.append(read_video(path))
        return path

    monkeypatch.setattr("vc2.metrics.external.write_video", keep)
    dover.measure(replace(bikes, frames=bikes.frames[:2]))
    assert abs(written[0].mean((0, 1, 2)) - bikes.frames[:2].mean((0, 1, 2))).max() < 2
    assert abs(written[0].astype(int) - bikes.frames[:2]).mean() < 3
