"""The harness against ComfyUI itself, with its stock nodes only: it reports what runs, and names what goes wrong."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest
import requests

from scripts.client import Client, PromptError, PromptInterruptedError
from scripts.comfyui import Server

PNG = b"\x89PNG"


def images(count: int = 2, color: int = 255, output: str = "PreviewImage") -> dict:
    """A prompt that makes `count` pictures of one colour and shows them."""
    empty = {"width": 64, "height": 32, "batch_size": count, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": output, "inputs": {"images": ["1", 0]}},
    }


def test_a_prompt_runs_and_its_files_can_be_fetched(client: Client, server: Server) -> None:
    prompt = images(output="SaveImage")
    prompt["2"]["inputs"]["filename_prefix"] = "fetched/picture"
    result = client.run(prompt)
    assert result.ran == ["1", "2"]
    assert [file.subfolder for file in result.files] == ["fetched", "fetched"]
    for file in result.files:
        assert client.view(file.filename, file.subfolder, file.type).startswith(PNG)
        assert (server.output / file.subfolder / file.filename).is_file()


def test_a_second_run_comes_from_the_cache_until_it_is_freed(client: Client) -> None:
    prompt = images(count=3)
    client.run(prompt)
    again = client.run(prompt)
    assert again.ran == []
    assert set(again.cached) == {"1", "2"}
    assert len(again.files) == 3
    client.free()
    # The server frees between prompts, a moment after it has answered.
    deadline = time.monotonic() + 10
    while not (freed := client.run(prompt)).ran and time.monotonic() < deadline:
        time.sleep(0.1)
    assert freed.ran == ["1", "2"]


def test_the_graph_that_was_saved_with_a_prompt_is_in_the_history(client: Client) -> None:
    workflow = {"nodes": [], "note": "mine"}
    result = client.run(images(), workflow=workflow)
    assert client.history(result.prompt_id)["prompt"][3]["extra_pnginfo"] == {"workflow": workflow}


def test_an_uploaded_picture_can_be_loaded(client: Client, tmp_path: Path) -> None:
    saved = client.run(images(count=1)).files[0]
    picture = tmp_path / "picture.png"
    picture.write_bytes(client.view(saved.filename, saved.subfolder, saved.type))
    name = client.upload(picture, subfolder="uploads")
    assert name == "uploads/picture.png"
    prompt = {
        "load": {"class_type": "LoadImage", "inputs": {"image": name}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["load", 0]}},
    }
    assert len(client.run(prompt).files) == 1


def test_an_unknown_node_type_is_named(client: Client) -> None:
    prompt = images() | {"7": {"class_type": "NoSuchNode", "inputs": {}}}
    with pytest.raises(PromptError, match="NoSuchNode") as refused:
        client.run(prompt)
    assert (refused.value.node_id, refused.value.node_type) == ("7", "NoSuchNode")


def test_a_value_out_of_range_is_named(client: Client) -> None:
    prompt = images()
    prompt["1"]["inputs"]["width"] = -1
    with pytest.raises(PromptError, match=r"Value -1 smaller than min of 1: width") as refused:
        client.queue(prompt)
    assert (refused.value.node_id, refused.value.node_type) == ("1", "EmptyImage")


def test_one_broken_branch_refuses_the_whole_prompt(client: Client) -> None:
    prompt = images() | {"3": {"class_type": "PreviewImage", "inputs": {}}}
    with pytest.raises(PromptError, match="Required input is missing: images") as refused:
        client.run(prompt)
    assert refused.value.node_id == "3"


def test_a_node_that_raises_is_named_with_its_message(client: Client) -> None:
    prompt = images()  # 64 x 32 pixels, scaled below to a picture without rows
    prompt["scale"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "scale_by": 0.01},
    }
    prompt["2"]["inputs"]["images"] = ["scale", 0]
    with pytest.raises(PromptError, match="RuntimeError") as raised:
        client.run(prompt)
    assert (raised.value.node_id, raised.value.node_type) == ("scale", "ImageScaleBy")
    assert "greater than 0" in raised.value.exception_message
    assert 'File "' in str(raised.value)  # the server's traceback


def slow_prompt(color: int) -> dict:
    """Seconds of work in many short nodes, as ComfyUI heeds an interrupt between nodes.

    Never cached as long as the colour is new.
    """
    prompt = images(count=4, color=color)
    prompt["1"]["inputs"] |= {"width": 256, "height": 256}
    source = "1"
    for step in range(60):
        prompt[f"blur {step}"] = {
            "class_type": "ImageBlur",
            "inputs": {"image": [source, 0], "blur_radius": 15, "sigma": 10.0},
        }
        source = f"blur {step}"
    prompt["2"]["inputs"]["images"] = [source, 0]
    return prompt


def test_an_interrupt_ends_the_run(client: Client) -> None:
    over = threading.Event()

    def keep_interrupting() -> None:  # once is not enough: an interrupt that comes before the first node is forgotten
        while not over.wait(0.3):
            client.interrupt()

    thread = threading.Thread(target=keep_interrupting)
    thread.start()
    try:
        with pytest.raises(PromptInterruptedError) as interrupted:
            client.run(slow_prompt(color=1))
    finally:
        over.set()
        thread.join()
    assert interrupted.value.node_type in ("EmptyImage", "ImageBlur")


def test_a_prompt_that_takes_too_long_is_cancelled(client: Client) -> None:
    with pytest.raises(TimeoutError, match="cancelled"):
        client.run(slow_prompt(color=2), timeout=0.3)
    assert client.run(images(count=1, color=3)).ran  # the queue is free again


def test_a_missing_file_is_an_error_with_its_address(client: Client) -> None:
    with pytest.raises(requests.HTTPError, match=r"no-such-file\.png"):
        client.view("no-such-file.png")


def test_the_server_tells_its_process_and_memory(client: Client, server: Server) -> None:
    assert psutil.Process(server.pid).is_running()
    assert 100e6 < server.rss < 100e9
    assert client.system_stats()["devices"][0]["type"] == "cpu"
    assert "EmptyImage" in client.object_info()
    assert server.log
