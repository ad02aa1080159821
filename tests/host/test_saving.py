"""The stock save nodes: what they write of a VideoCrafter model loads again as what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scripts.client import PromptError
from tests import standin
from tests.fixtures import relative_rms
from tests.host.graphs import SAME, Graph, base, ksampler, node, run_for_latent, vc2_sampler
from tests.host.test_turbo import turbo_node
from tests.vc2.loras import turbo_list
from vc2.files import checkpoint
from vc2.sampling.schedule import NoiseSchedule


@pytest.fixture(scope="module")
def narrow(server) -> str:
    return standin.write(server.base / "models" / "checkpoints" / "saving.safetensors").name


def saved(client, server, graph: Graph, kind: str, name: str, **inputs) -> Path:
    """The file that the stock node `kind` writes into the models folder `name`."""
    folder = "checkpoints" if kind == "CheckpointSave" else "diffusion_models"
    client.run(graph | {"save": node(kind, filename_prefix=f"{folder}/{name}", **inputs)})
    return server.output / folder / f"{name}_00001_.safetensors"


def reloaded(graph: Graph, file: Path) -> Graph:
    return graph | {"unet": node("VC2LoadDiffusionModel", unet_name=file.name, weight_dtype="default")}


def test_model_save_keeps_family_and_rescale(client, server, narrow):
    graph = base(narrow)
    expected = run_for_latent(client, graph | {"sampler": vc2_sampler(steps=3)})
    file = saved(client, server, graph, "ModelSave", "plain", model=["load", 0])
    found = checkpoint.load(file)
    assert found.config.family == "VideoCrafter2"
    assert torch.equal(found.schedule.scale, NoiseSchedule().scale)
    again = run_for_latent(client, reloaded(graph, file) | {"sampler": vc2_sampler(steps=3, model=["unet", 0])})
    assert relative_rms(again, expected) < SAME


def test_model_save_keeps_a_plain_schedule(client, server):
    """A file of the family that is rescaled by default, whose own scale_arr says that it is not."""
    whole = checkpoint.read_tensors(
        standin.write(server.base / "models" / "checkpoints" / "saving_plain.safetensors", schedule=NoiseSchedule(None))
    )
    save_file(
        whole | {"scale_arr": torch.ones(1400)}, server.base / "models" / "checkpoints" / "saving_plain.safetensors"
    )
    file = saved(client, server, base("saving_plain.safetensors"), "ModelSave", "unscaled", model=["load", 0])
    assert not checkpoint.load(file).schedule.rescaled


def test_checkpoint_save_writes_the_official_layout(client, server, narrow):
    graph = base(narrow)
    expected = run_for_latent(client, graph | {"sampler": vc2_sampler(steps=3)})
    file = saved(client, server, graph, "CheckpointSave", "whole", model=["load", 0], clip=["load", 1], vae=["load", 2])
    before, after = (checkpoint.read_tensors(path) for path in (server.base / "models" / "checkpoints" / narrow, file))
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} <= {
        "cond_stage_model.model.logit_scale"
    }  # the host does not read it
    graph["load"]["inputs"]["ckpt_name"] = file.name
    assert relative_rms(run_for_latent(client, graph | {"sampler": vc2_sampler(steps=3)}), expected) < SAME


def test_a_saved_turbo_model_is_one(client, server, narrow):
    """T2V-Turbo's LoRA in the weights: the layer that it adds is kept, and with it the family."""
    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    torch.save([0.05 * t for t in turbo_list(standin.unet_config("vc2_tiny"))], folder / "saving_turbo.pt")
    graph = base(narrow) | {"lora": node("VC2LoadLoRA", model=["load", 0], lora_name="saving_turbo.pt", strength=1.0)}
    turbo = turbo_node(model=["lora", 0], steps=2)
    expected = run_for_latent(client, graph | {"sampler": turbo})
    file = saved(client, server, graph, "ModelSave", "turbo", model=["lora", 0])
    assert checkpoint.load(file).config.family == "T2V-Turbo"
    turbo["inputs"]["model"] = ["unet", 0]
    assert torch.allclose(run_for_latent(client, reloaded(graph, file) | {"sampler": turbo}), expected, atol=1e-3)


def test_a_stock_merge_is_no_turbo_model(client, server, narrow):
    """A merge patches every weight, that of the layer that T2V-Turbo would add too."""
    graph = base(narrow) | {"merge": node("ModelMergeSimple", model1=["load", 0], model2=["load", 0], ratio=0.5)}
    with pytest.raises(PromptError, match="needs a model that was distilled"):
        run_for_latent(client, graph | {"sampler": turbo_node(model=["merge", 0])})
    assert torch.isfinite(run_for_latent(client, graph | {"sampler": ksampler(steps=2, model=["merge", 0])})).all()
