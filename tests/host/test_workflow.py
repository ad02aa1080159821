"""Saved graphs become prompts: what the browser's own button sends, node by node.

The rules were checked against the browser's graphToPrompt.
"""

from __future__ import annotations

import copy

import pytest

from scripts.client import Client
from scripts.workflow import WorkflowError, find_node, set_widget, typed_widgets, ui_to_api

OBJECT_INFO = {
    "Load": {
        "input": {"required": {"file": [["a.png", "b.png"], {"image_upload": True}]}},
        "input_order": {"required": ["file"]},
        "display_name": "Load a picture",
    },
    "Blur": {
        "input": {"required": {"image": ["IMAGE", {}], "radius": ["INT", {"default": 1}]}},
        "input_order": {"required": ["image", "radius"]},
    },
    "Sample": {
        # The order of `input_order` counts, not that of the names in `input`.
        "input": {
            "required": {"cfg": ["FLOAT", {"default": 7.0}], "image": ["IMAGE", {}], "seed": ["INT", {"default": 0}]},
            "optional": {
                "mode": ["COMBO", {"options": ["fast", "slow"], "control_after_generate": True}],
                "strength": ["FLOAT", {"default": 1.0, "forceInput": True}],
                "frames": ["INT", {"default": 16}],
            },
        },
        "input_order": {"required": ["image", "seed", "cfg"], "optional": ["mode", "strength", "frames"]},
    },
}


def node(
    id: int, type: str, values: list | dict | None = None, links: dict | None = None, mode: int = 0, **extra
) -> dict:
    sockets = [{"name": name, "type": "IMAGE", "link": link} for name, link in (links or {}).items()]
    return {
        "id": id,
        "type": type,
        "widgets_values": values,
        "inputs": sockets,
        "outputs": [{"type": "IMAGE"}],
        "mode": mode,
        **extra,
    }


def graph(*nodes: dict, links: list) -> dict:
    return {"nodes": list(nodes), "links": links}


LOAD = node(1, "Load", ["b.png", "image"])
# seed, its control, cfg, mode, its control and filter, frames
SAMPLE = node(9, "Sample", [5, "randomize", 7.5, "slow", "fixed", "", 24], {"image": 1})


def test_values_go_to_their_names_past_the_browsers_own_controls() -> None:
    prompt = ui_to_api(graph(LOAD, SAMPLE, links=[[1, 1, 0, 9, 0, "IMAGE"]]), OBJECT_INFO)
    assert prompt == {
        "1": {"class_type": "Load", "inputs": {"file": "b.png"}, "_meta": {"title": "Load a picture"}},
        "9": {
            "class_type": "Sample",
            "inputs": {"image": ["1", 0], "seed": 5, "cfg": 7.5, "mode": "slow", "frames": 24},
            "_meta": {"title": "Sample"},
        },
    }


def test_links_may_be_objects() -> None:
    link = {"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 9, "target_slot": 0, "type": "IMAGE"}
    assert ui_to_api(graph(LOAD, SAMPLE, links=[link]), OBJECT_INFO)["9"]["inputs"]["image"] == ["1", 0]


def test_a_widget_with_a_link_keeps_its_place_and_takes_the_link() -> None:
    sample = node(9, "Sample", [5, "fixed", 7.5, "slow", "fixed", "", 24], {"image": 1, "cfg": 2, "strength": 2})
    inputs = ui_to_api(graph(LOAD, sample, links=[[1, 1, 0, 9, 0, "IMAGE"], [2, 1, 1, 9, 1, "FLOAT"]]), OBJECT_INFO)[
        "9"
    ]["inputs"]
    assert inputs == {"image": ["1", 0], "seed": 5, "cfg": ["1", 1], "mode": "slow", "frames": 24, "strength": ["1", 1]}


def test_an_input_newer_than_the_workflow_gets_its_default() -> None:
    inputs = ui_to_api(graph(node(9, "Sample", [5, "fixed", 7.5]), links=[]), OBJECT_INFO)["9"]["inputs"]
    assert inputs == {"seed": 5, "cfg": 7.5, "mode": "fast", "frames": 16}


def test_values_may_be_saved_by_name() -> None:
    assert (
        ui_to_api(graph(node(9, "Sample", {"seed": 1, "frames": 8}), links=[]), OBJECT_INFO)["9"]["inputs"]["frames"]
        == 8
    )


def test_what_exists_only_in_the_browser_is_left_out_and_links_pass_through() -> None:
    note, comment = node(2, "Note", ["read me"]), node(3, "MarkdownNote", ["# read me"])
    reroute = node(4, "Reroute", None, {"": 1})
    primitive = node(5, "PrimitiveNode", [11, "fixed"])
    sample = node(9, "Sample", [5, "fixed", 7.5, "slow", "fixed", "", 24], {"image": 2, "seed": 3})
    links = [[1, 1, 0, 4, 0, "*"], [2, 4, 0, 9, 0, "*"], [3, 5, 0, 9, 1, "INT"]]
    prompt = ui_to_api(graph(LOAD, note, comment, reroute, primitive, sample, links=links), OBJECT_INFO)
    assert set(prompt) == {"1", "9"}
    assert prompt["9"]["inputs"]["image"] == ["1", 0]
    assert prompt["9"]["inputs"]["seed"] == 11


def test_a_bypassed_node_lets_its_input_through() -> None:
    blur = node(4, "Blur", [3], {"image": 1}, mode=4)
    prompt = ui_to_api(
        graph(
            LOAD, blur, node(9, "Blur", [2], {"image": 2}), links=[[1, 1, 0, 4, 0, "IMAGE"], [2, 4, 0, 9, 0, "IMAGE"]]
        ),
        OBJECT_INFO,
    )
    assert set(prompt) == {"1", "9"}
    assert prompt["9"]["inputs"] == {"image": ["1", 0], "radius": 2}


def test_a_muted_node_feeds_nothing() -> None:
    blur = node(4, "Blur", [3], {"image": 1}, mode=2)
    prompt = ui_to_api(
        graph(
            LOAD, blur, node(9, "Blur", [2], {"image": 2}), links=[[1, 1, 0, 4, 0, "IMAGE"], [2, 4, 0, 9, 0, "IMAGE"]]
        ),
        OBJECT_INFO,
    )
    assert prompt["9"]["inputs"] == {"radius": 2}


def test_a_list_is_wrapped_so_that_it_is_no_link() -> None:
    info = {"Many": {"input": {"required": {"names": ["COMBO", {"multiselect": True, "options": ["a", "b"]}]}}}}
    assert ui_to_api(graph(node(1, "Many", [["a", "b"]]), links=[]), info)["1"]["inputs"] == {
        "names": {"__value__": ["a", "b"]}
    }


def dynamic(**options: dict) -> list:
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": key, "inputs": own} for key, own in options.items()]}]


# As stock Save Video of ComfyUI 0.33.
QUALITY = {"required": {"crf": ["FLOAT", {"default": 23.0}]}}
CODECS = {"required": {"codec": dynamic(auto={}, h264={"optional": {"encoding": dynamic(auto={}, again=QUALITY)}})}}
HIDDEN = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "auto", "inputs": {}}], "hidden": True}]
SAVE = {
    "Save": {
        "input": {
            "required": {"prefix": ["STRING", {"default": "clip"}], "format": dynamic(auto=CODECS, gif={})},
            "optional": {"loops": ["INT", {"default": 0}], "codec": HIDDEN},
        }
    }
}


H264 = {"prefix": "a", "format": "auto", "format.codec": "h264"}


@pytest.mark.parametrize(
    ("values", "inputs"),
    [
        (["a", "gif", 3], {"prefix": "a", "format": "gif", "loops": 3}),
        (
            ["a", "auto", "h264", "again", 18.0, 3],
            H264 | {"format.codec.encoding": "again", "format.codec.encoding.crf": 18.0, "loops": 3},
        ),
        (["a"], {"prefix": "a", "format": "auto", "format.codec": "auto", "loops": 0}),
        (H264, H264 | {"format.codec.encoding": "auto", "loops": 0}),
    ],
)
def test_a_choice_brings_its_own_inputs(values: list | dict, inputs: dict) -> None:
    """They follow it among the saved values, and are named after it."""
    assert ui_to_api(graph(node(1, "Save", values), links=[]), SAVE)["1"]["inputs"] == inputs


def test_what_a_choice_brings_can_be_set() -> None:
    save = node(1, "Save", ["a", "auto", "h264", "again", 18.0, 3])
    set_widget(save, "format.codec.encoding.crf", 30.0, SAVE)
    set_widget(save, "loops", 4, SAVE)
    assert save["widgets_values"] == ["a", "auto", "h264", "again", 30.0, 4]


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ({"1": {"class_type": "Load", "inputs": {}}}, "not a saved workflow"),
        (graph(node(3, "Dream"), links=[]), "node 3: this ComfyUI has no node type 'Dream'"),
        ({**graph(node(3, "8b0c"), links=[]), "definitions": {"subgraphs": [{"id": "8b0c"}]}}, "node 3 is a subgraph"),
        (graph(node(9, "Blur", [1], {"image": 77}), links=[]), "link 77"),
    ],
)
def test_what_cannot_be_converted_is_named(workflow: dict, message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        ui_to_api(workflow, OBJECT_INFO)


def test_a_widget_is_set_where_its_value_is_saved() -> None:
    sample = copy.deepcopy(SAMPLE)
    set_widget(sample, "frames", 48, OBJECT_INFO)
    assert sample["widgets_values"] == [5, "randomize", 7.5, "slow", "fixed", "", 48]


def test_only_typed_widgets_can_be_set() -> None:
    sample = node(9, "Sample", [5, "fixed", 7.5], {"seed": 1})
    assert typed_widgets(sample, OBJECT_INFO) == ["cfg", "mode", "frames"]
    with pytest.raises(WorkflowError, match="no widget 'seed' to type into"):
        set_widget(sample, "seed", 1, OBJECT_INFO)
    with pytest.raises(WorkflowError, match="end before 'frames'"):
        set_widget(sample, "frames", 1, OBJECT_INFO)


def test_a_node_is_found_by_type_and_title() -> None:
    workflow = graph(
        node(1, "Load", title="Prompt"), node(2, "Load", title="Negative"), node(3, "Blur", title="Prompt"), links=[]
    )
    assert find_node(workflow, "Load", "Prompt")["id"] == 1
    with pytest.raises(WorkflowError, match=r"found 0.*\['Negative', 'Prompt'\]"):
        find_node(workflow, "Load", "Positive")


def test_a_converted_graph_runs(client: Client) -> None:
    empty = node(1, "EmptyImage", [64, 64, 3, 255])
    show = node(2, "PreviewImage", [], {"images": 1})
    prompt = ui_to_api(graph(empty, show, links=[[1, 1, 0, 2, 0, "IMAGE"]]), client.object_info())
    assert len(client.run(prompt).files) == 3
