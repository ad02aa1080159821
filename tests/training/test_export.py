"""`export` and `merge`: every form of what was trained gives the same model, and none loses anything silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.runs import quiet_logs, say  # noqa: F401 (the former is a fixture of this module, too)
from vc2.files import checkpoint, lora
from vc2.files.checkpoint import UNET
from vc2.files.merge import merge
from vc2.networks.unet import VideoUNet
from vc2.training.initialise import sampling_of
from vc2.training.loop import Trainer
from vc2.training.partition import temporal_names
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import BUNDLED, load_recipe

TINY = BUNDLED / "tiny"


@pytest.fixture
def trained(recipe, recipe_file, folder, start):
    """A finetuned run of a whole checkpoint, and how to name it on the command line."""

    def train(**changes):
        path = recipe_file(steps=3, init={"unet": start}, optimizer={"lr": 0.01, "warmup": 0}, **changes)
        Trainer(load_recipe(path), folder).run()
        return path

    return train


def exported(capsys, path, folder, target, *options: str) -> int:
    """The exit status of an export in float32."""
    return say(capsys, "export", path, "--runs", folder.parent, "--dtype", "fp32", "-o", target, *options)[0]


def test_a_lora_run_exports_its_lora_and_merging_it_is_the_full_export(trained, folder, start, capsys, tmp_path):
    path = trained(learn={"part": "spatial", "how": "lora", "rank": 2})
    assert exported(capsys, path, folder, tmp_path / "lora.safetensors", "--form", "lora") == 0
    assert exported(capsys, path, folder, tmp_path / "full.safetensors") == 0
    assert say(capsys, "merge", start, tmp_path / "lora.safetensors", "-o", tmp_path / "merged.safetensors")[0] == 0
    assert Recipe.model_validate_json(checkpoint.read_metadata(tmp_path / "lora.safetensors")["recipe"]).learn.rank == 2
    full, merged = load_file(tmp_path / "full.safetensors"), load_file(tmp_path / "merged.safetensors")
    before = load_file(start)
    assert any(not torch.equal(full[name], before[name].float()) for name in full if name.startswith(UNET))
    for name in full:
        assert torch.allclose(full[name], merged[name].float(), rtol=2e-3, atol=1e-5), (
            name
        )  # the merged file is in the start's half precision
    for name, again in {
        "full": ("export", path, "--runs", folder.parent),
        "merged": ("merge", start, tmp_path / "lora.safetensors"),
    }.items():
        target = tmp_path / f"{name}.safetensors"
        before_it = target.read_bytes()
        code, _, errors = say(capsys, *again, "-o", target)
        assert (code, target.read_bytes()) == (2, before_it)
        assert "--overwrite" in errors
        assert say(capsys, *again, "-o", target, "--overwrite")[0] == 0
    config = checkpoint.load(tmp_path / "full.safetensors").config
    assert all(
        name.endswith((".lora_A.weight", ".lora_B.weight", ".alpha"))
        for name in lora.load(tmp_path / "lora.safetensors", config)
    )
    assert (folder / "lora.safetensors").is_file()  # the run itself left one


def test_a_spatial_export_is_what_changed_and_added_gives_the_full_one(trained, folder, start, capsys, tmp_path):
    path = trained(learn={"part": "spatial"}, data={"clips": None})
    for form in ("spatial", "full"):
        assert exported(capsys, path, folder, tmp_path / f"{form}.safetensors", "--form", form) == 0
    change, before = load_file(tmp_path / "spatial.safetensors"), checkpoint.load(start)
    unet = VideoUNet(before.config, device="meta")
    changed = {name.removeprefix("diffusion_model.").rsplit(".", 1)[0] for name in change}
    assert changed
    assert not changed & {name.rsplit(".", 1)[0] for name in temporal_names(unet)}
    merged = merge(
        {n: t.float() for n, t in before.unet.items()}, lora.load(tmp_path / "spatial.safetensors", before.config)
    )
    full = checkpoint.load(tmp_path / "full.safetensors").unet
    assert all(torch.allclose(merged[name], full[name], atol=1e-6) for name in full)


def test_a_run_s_folder_stands_for_its_recipe(trained, folder, capsys, tmp_path):
    path = trained(learn={"part": "spatial"})
    assert say(capsys, "export", folder, "-o", tmp_path / "a.safetensors")[0] == 0
    assert say(capsys, "export", path, "--runs", folder.parent, "-o", tmp_path / "b.safetensors")[0] == 0
    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    code, _, err = say(capsys, "export", tmp_path)
    assert (code, "is no run: there are no checkpoints in it" in err) == (2, True)


def test_sampling_settings_come_from_the_start_unless_the_recipe_has_its_own(recipe, start, tmp_path):
    state = checkpoint.load(start)
    other = tmp_path / "other.safetensors"
    sampling = {"width": 64, "steps": 7}
    checkpoint.save(other, unet=state.unet, vae=state.vae, text=state.text, metadata={"sampling": json.dumps(sampling)})
    assert sampling_of(recipe(init={"unet": str(other)})) == sampling
    assert sampling_of(recipe(init={"unet": str(other)}, sampling={"steps": 3})) == {"width": 64, "steps": 3}


def test_raw_is_the_last_step_and_not_the_average(trained, folder, capsys, tmp_path):
    path = trained(learn={"part": "spatial"})
    say(capsys, "export", path, "--runs", folder.parent, "--dtype", "fp32", "--raw", "-o", tmp_path / "raw.safetensors")
    state = torch.load(next((folder / "checkpoints").glob("*3.pt")), weights_only=True)
    raw = load_file(tmp_path / "raw.safetensors")
    assert all(torch.equal(raw[UNET + name], tensor) for name, tensor in state["model"].items())
    assert any(not torch.equal(raw[UNET + name], tensor) for name, tensor in state["ema"]["shadow"].items())
    assert json.loads(checkpoint.load(tmp_path / "raw.safetensors").metadata["step"]) == 3
    # Without a name it is not taken for what the run has left.
    before = (folder / "model.safetensors").read_bytes()
    code, out, _ = say(capsys, "export", path, "--runs", folder.parent, "--raw")
    assert (code, Path(out.strip()).name) == (0, "full-raw.safetensors")
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("learn", "form", "message"),
    [
        ({"part": "spatial"}, "lora", "learns directly and has no LoRA"),
        ({"part": "temporal"}, "spatial", "is temporal and has changed too"),
    ],
)
def test_an_export_that_would_lose_something_is_refused(trained, folder, capsys, learn, form, message):
    path = trained(learn=learn)
    code, _, err = say(capsys, "export", path, "--runs", folder.parent, "--form", form)
    assert code == 2
    assert message in err
    assert not (folder / f"{form}.safetensors").exists()


def test_an_export_of_other_weights_is_refused(recipe, folder, start, capsys, tmp_path):
    """What did not learn is read again: it must still be what it was."""
    copy, learn = tmp_path / "copy.safetensors", {"part": "spatial", "how": "lora", "rank": 2}
    copy.write_bytes(Path(start).read_bytes())
    Trainer(recipe(steps=1, init={"unet": str(copy)}, learn=learn), folder).run()
    state = load_file(copy)
    save_file({**state, f"{UNET}out.2.bias": state[f"{UNET}out.2.bias"] + 5}, copy)
    code, _, err = say(capsys, "export", folder)
    assert (code, "init.unet: the weights there are not those that the run started from" in err) == (2, True)


def test_an_export_by_another_recipe_is_refused(trained, folder, capsys):
    path = trained(learn={"part": "spatial"})
    code, _, err = say(capsys, "export", path, "--runs", folder.parent, "seed=5", "learn.part=all")
    assert (code, "was trained with another seed, learn" in err) == (2, True)
    code, _, err = say(capsys, "export", folder, "learn.rank=7")
    assert (code, "a run's folder stands for the recipe that it was trained with" in err) == (2, True)


def test_the_miniature_s_parts_have_one_form(capsys, tmp_path):
    code, _, err = say(capsys, "export", TINY / "text.yaml", "--runs", tmp_path)
    assert (code, "trains the miniature's text" in err) == (2, True)


def test_an_export_of_nothing_says_what_to_run(recipe_file, folder, capsys):
    code, _, err = say(capsys, "export", recipe_file(), "--runs", folder.parent)
    assert (code, "holds no checkpoint; run the recipe first" in err) == (2, True)
