"""`make demo` in small: a prompt and a seed in, a video's path out.

Stock nodes stand in for the model, so only the demo's own part runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.client import Client
from scripts.comfyui import ROOT, Server
from scripts.demo import make_video
from scripts.workflow import WorkflowError


def workflow(*save: dict) -> dict:
    """Pictures of one colour become a video; the text node hangs loose, and KSampler, muted, lends its seed."""
    socket = {"name": "images", "type": "IMAGE", "link": 1}
    return {
        "nodes": [
            {
                "id": 1,
                "type": "EmptyImage",
                "widgets_values": [64, 64, 4, 255],
                "inputs": [],
                "outputs": [{"type": "IMAGE"}],
            },
            {"id": 2, "type": "CreateVideo", "widgets_values": [8], "inputs": [socket], "outputs": [{"type": "VIDEO"}]},
            {
                "id": 3,
                "type": "CLIPTextEncode",
                "title": "Prompt",
                "widgets_values": ["a dog"],
                "inputs": [],
                "outputs": [],
            },
            {
                "id": 4,
                "type": "KSampler",
                "mode": 2,
                "widgets_values": [1, "fixed", 20, 8, "euler", "normal", 1],
                "inputs": [],
                "outputs": [],
            },
            *save,
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 5, 0, "VIDEO"]],
    }


SAVE = {
    "id": 5,
    "type": "SaveVideo",
    "widgets_values": ["demo/clip", "mp4", "h264"],
    "inputs": [{"name": "video", "type": "VIDEO", "link": 2}],
    "outputs": [],
}
SHOW = {
    "id": 6,
    "type": "PreviewImage",
    "widgets_values": [],
    "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
    "outputs": [],
}


def test_a_prompt_becomes_a_video_that_knows_its_workflow(client: Client, server: Server) -> None:
    video = make_video(client, workflow(SAVE), "a red circle", 7, server.output)
    assert video.parent == server.output / "demo"
    assert video.suffix == ".mp4"
    assert b"ftyp" in video.read_bytes()[:16]
    last = max(server.base.glob("output/demo/*.mp4"), key=lambda path: path.stat().st_mtime)
    assert last == video
    assert json.dumps("a red circle").strip('"').encode() in video.read_bytes()


def test_no_text_node_no_seed_and_no_video_are_named(client: Client, tmp_path: Path) -> None:
    silent = workflow(SAVE)
    silent["nodes"][2]["title"] = "Negative"
    with pytest.raises(WorkflowError, match="CLIPTextEncode node titled 'Prompt'"):
        make_video(client, silent, "a cat", None, tmp_path)
    seedless = workflow(SAVE)
    del seedless["nodes"][3]
    with pytest.raises(WorkflowError, match="--seed 3"):
        make_video(client, seedless, "a cat", 3, tmp_path)
    with pytest.raises(WorkflowError, match="saved no video"):
        make_video(client, workflow(SHOW), "a cat", None, tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("# A page, not a workflow", "is not JSON"),
        ("[]", "has no nodes"),
        ('{"1": {"class_type": "A"}}', "has no nodes"),
    ],
)
def test_what_is_no_workflow_is_told_at_once(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "page.json").write_text(content)
    demo = [sys.executable, "-m", "scripts.demo", "--workflow", str(tmp_path / "page.json")]
    run = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith(f"demo: {tmp_path / 'page.json'} {complaint}")
    assert "Starting ComfyUI" not in run.stderr
