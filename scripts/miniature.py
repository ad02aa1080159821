"""What to change in each graph to run it on the bundled miniature.

The thumbnails are made so, and a button on the loader does the same (web/miniature.js).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .graph import OFFICIAL, PROMPT_TITLE, TINY, TINY_TURBO, TURBO, Graph

SENTENCE = "a red circle moving right"
SENTENCES = {
    "VideoCrafter2_1_Quickstart": SENTENCE,
    "VideoCrafter2_2_Text_to_Video": "a purple triangle moving up",
    "VideoCrafter2_High_Resolution": "a yellow square moving left",
    "VideoCrafter2_Stock_KSampler": "a green square moving left",
    "VideoCrafter2_Custom_Sampler": "a white circle moving down",
    "VideoCrafter2_Guidance": "a green cross moving right",
    "VideoCrafter2_FreeInit": "a red triangle moving down",
    "VideoCrafter2_LoRA": "a yellow circle moving down",
    "VideoCrafter2_Turbo_4_Steps": "a white cross moving down",
    "VideoCrafter2_Long_Video": "a blue triangle moving right",
    "VideoCrafter2_Long_Video_FIFO": "a purple square moving down",
    "VideoCrafter2_Prompt_Travel": "a blue circle, then a red circle moving right",
    "VideoCrafter2_Video_to_Video": "a yellow square moving up",
    "VideoCrafter2_Strategy_Comparison": SENTENCE,
    "training/VideoCrafter2_Training_Strategies": "a purple cross moving up",
}
SETTINGS: dict[str, Any] = {
    "ckpt_name": TINY,
    "width": 64,
    "height": 64,
    "steps": 25,
    "guidance": 4.0,
    "cfg": 4.0,
    "partitions": 2,
}
# What the miniature's own four-step LoRA was distilled with (training/recipes/tiny/turbo.yaml). Eight steps, because in
# four a shape is bent now and then, though as many clips are right (`python -m bench.few_steps --turbo --frames 16`).
TURBO_SETTINGS: dict[str, Any] = {"steps": 8, "guidance": 3.0, "original_steps": 20}


class Edit(NamedTuple):
    """A widget of a node, its value for the miniature, and the one that the graph has."""

    node: str
    widget: str
    value: Any
    before: Any


def edits(name: str, graph: Graph) -> list[Edit]:
    """The same graph at the miniature's size and settings, in a sentence that it knows."""
    changes = []
    for key, node in graph.nodes.items():
        settings = dict(SETTINGS)
        if node.title == PROMPT_TITLE:
            settings["text"] = SENTENCES[name]
        if node.kind == "VC2PromptTravel":
            last = node.inputs["frames"] - 1
            settings["prompts"] = f"0: a blue circle moving right\n{last}: a red circle moving right"
        if node.kind == "VC2TurboSampler":
            settings |= TURBO_SETTINGS
        if node.inputs.get("lora_name") == TURBO:
            settings["lora_name"] = TINY_TURBO
        changes += [
            Edit(key, widget, settings[widget], value)
            for widget, value in node.inputs.items()
            if widget in settings and not isinstance(value, tuple) and value != settings[widget]
        ]
    return changes


def can_run(graph: Graph) -> bool:
    """Whether the graph names no other weights than those whose place the miniature and its LoRA take."""
    inputs = [(widget, value) for node in graph.nodes.values() for widget, value in node.inputs.items()]
    others = [value for widget, value in inputs if widget in ("lora_name", "unet_name")]
    return ("ckpt_name", OFFICIAL) in inputs and set(others) <= {TURBO}
