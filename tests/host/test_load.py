"""The loaders, before and after their files are read: which one a new node stands at, and how a refusal reads."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from scripts.client import PromptError
from tests import standin
from tests.host.graphs import base, node


@pytest.fixture
def models(server, request):
    """Empty files by these names in a models folder, gone afterwards."""
    made = []

    def models(folder, *names):
        for name in names:
            path = server.base / "models" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            made.append(path)

    yield models
    for path in made:
        path.unlink()


def default_of(client, kind, name):
    return client.object_info()[kind]["input"]["required"][name][1].get("default")


def test_a_new_loader_stands_at_a_file_of_ours(client, models):
    """Told from the name alone: the released model before the miniature, and that before what is another model's."""
    models("checkpoints", "a_sdxl.safetensors", "z_sd15.ckpt")
    assert default_of(client, "VC2LoadCheckpoint", "ckpt_name") == "vc2-tiny.safetensors"
    models("checkpoints", "z/VideoCrafter2.safetensors")
    assert default_of(client, "VC2LoadCheckpoint", "ckpt_name") == "z/VideoCrafter2.safetensors"


def test_where_there_is_none_of_ours(client, models):
    models("diffusion_models", "a_wan.safetensors")
    assert default_of(client, "VC2LoadDiffusionModel", "unet_name") is None
    models("diffusion_models", "turbo_vc2.safetensors")
    assert default_of(client, "VC2LoadDiffusionModel", "unet_name") == "turbo_vc2.safetensors"


@pytest.mark.parametrize("kind", ["VC2LoadCheckpoint", "VC2LoadDiffusionModel", "VC2LoadLoRA"])
def test_a_refusal_begins_with_its_sentence(client, server, kind):
    """No path of a class before it, which is what the front end shows first."""
    folder, name = {
        "VC2LoadCheckpoint": ("checkpoints", "ckpt_name"),
        "VC2LoadDiffusionModel": ("diffusion_models", "unet_name"),
        "VC2LoadLoRA": ("loras", "lora_name"),
    }[kind]
    path = server.base / "models" / folder / "wrong.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"head.weight": torch.zeros(2)}, path)
    graph = base(standin.write(server.base / "models" / "checkpoints" / "right.safetensors").name)
    further = {"model": ["load", 0], "strength": 1.0} if kind == "VC2LoadLoRA" else {"weight_dtype": "default"}
    graph = {"load": graph["load"], "wrong": node(kind, **{name: path.name}, **further)}
    graph["save"] = node("ModelSave", model=["wrong", 0], filename_prefix="never")
    with pytest.raises(PromptError) as error:
        client.run(graph)
    assert error.value.exception_message.startswith(f"ValueError: {path}")
    assert error.value.node_type == kind
