"""The five-minute look: start ComfyUI with this pack, run a saved workflow on a prompt, leave a video in output/.

`python -m scripts.demo --prompt "a red circle moving right"` prints the video's path as its last line; `--ui` serves
ComfyUI to a browser instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from .client import Client, Progress, PromptError, Result
from .comfyui import CACHE, PACK_NAME, ROOT, ComfyUIError, Server, free_port, serve
from .workflow import WorkflowError, find_node, set_widget, typed_widgets, ui_to_api

QUICKSTART = ROOT / "workflows" / "VideoCrafter2_1_Quickstart.json"
PROMPT_NODE = ("CLIPTextEncode", "Prompt")
VIDEO_SUFFIXES = {".mp4", ".webm", ".mov", ".mkv", ".gif", ".webp"}


def read_workflow(path: Path) -> dict[str, Any]:
    """A workflow that ComfyUI saved. Raises OSError, or WorkflowError for a file that is none."""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkflowError(f"{path} is not JSON ({error}); name a workflow saved from ComfyUI") from error
    if not isinstance(workflow, dict) or "nodes" not in workflow:
        raise WorkflowError(f"{path} has no nodes; name a workflow saved from ComfyUI, not one exported for the API")
    return workflow


def make_video(client: Client, workflow: dict[str, Any], prompt: str, seed: int | None, output: Path) -> Path:
    """Run a saved workflow with `prompt` (and `seed`) filled in.

    Returns the path of the video that it saved under `output`, the server's output folder.
    """
    object_info = client.object_info()
    set_widget(find_node(workflow, *PROMPT_NODE), "text", prompt, object_info)
    if seed is not None:
        _set_seed(workflow, seed, object_info)
    result = _run_with_bar(client, ui_to_api(workflow, object_info), workflow)
    videos = [file for file in result.files if file.type == "output" and Path(file.filename).suffix in VIDEO_SUFFIXES]
    if not videos:
        raise WorkflowError(
            f"the workflow ran but saved no video; it saved {[file.filename for file in result.files]}. Does it end in"
            " a save node?"
        )
    return output / videos[-1].subfolder / videos[-1].filename


def _set_seed(workflow: dict[str, Any], seed: int, object_info: dict[str, Any]) -> None:
    seeds = [
        (node, name)
        for node in workflow["nodes"]
        for name in typed_widgets(node, object_info)
        if name in ("seed", "noise_seed")
    ]
    if not seeds:
        raise WorkflowError(f"--seed {seed}: no node of the workflow has a seed")
    for node, name in seeds:
        set_widget(node, name, seed, object_info)


def _run_with_bar(client: Client, api: dict[str, dict[str, Any]], workflow: dict[str, Any]) -> Result:
    bars: dict[str, tqdm[Any]] = {}

    def advance(step: Progress) -> None:
        if step.node_id not in bars:
            bars[step.node_id] = tqdm(total=step.max, desc=api[step.node_id]["_meta"]["title"])
        bars[step.node_id].update(step.value - bars[step.node_id].n)

    try:
        return client.run(api, advance, timeout=24 * 3600, workflow=workflow)
    finally:
        for bar in bars.values():
            bar.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo", description="Run a workflow in a real ComfyUI with this pack."
    )
    parser.add_argument("--prompt", default="a red circle moving right", help="what the video should show")
    parser.add_argument(
        "--workflow",
        type=Path,
        default=QUICKSTART,
        help="a workflow saved from ComfyUI, with a CLIPTextEncode titled Prompt",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "output", help="folder for the video")
    parser.add_argument("--seed", type=int, help="default: the workflow's own, so that every run makes the same video")
    parser.add_argument(
        "--ui",
        action="store_true",
        help="serve ComfyUI to a browser until Ctrl-C instead; its files stay in .host/base",
    )
    options = parser.parse_args()
    if options.ui:
        start = f"/?template={QUICKSTART.stem}&source={PACK_NAME}" if QUICKSTART.exists() else "/"
        serve(Server(base=CACHE / "base", output=options.out, port=free_port(8188)), start)
        return
    workflow = read_workflow(options.workflow)
    print("Starting ComfyUI; the video will be under", options.out, file=sys.stderr)
    with Server(output=options.out) as server:
        video = make_video(Client(server.url), workflow, options.prompt, options.seed, server.output)
    print(video)


if __name__ == "__main__":
    try:
        main()
    except (ComfyUIError, PromptError, WorkflowError, requests.RequestException, OSError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(130)
