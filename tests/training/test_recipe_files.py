"""A recipe's file says what is read, and what is wrong in it is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.recipes import ROOT, TINY
from vc2.training.errors import RecipeError
from vc2.training.recipe_files import load_recipe


def test_yaml_s_words_mean_what_they_say():
    recipe = load_recipe(
        TINY / "base.yaml",
        ["data.clips.prepared=no", "compute.gradient_checkpointing=yes", "optimizer.lr=1e-4", "data.crop=random"],
    )
    assert (recipe.data.clips.prepared, recipe.compute.gradient_checkpointing, recipe.optimizer.lr) == (
        "no",
        True,
        1e-4,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lrate=1",
            r"unknown key optimizer\.lrate; did you mean optimizer\.lr\? \(the keys of optimizer are kind, lr, ",
        ),
        ("stepps=1", r"unknown key stepps; did you mean steps\? \(the keys of a recipe are name, about, "),
        ("optimiser.lr=1", r"unknown key optimiser; did you mean optimizer\?"),
        ("lr=1", r"unknown key lr; did you mean optimizer\.lr\? \(the keys of a recipe are name, "),
        ("compute.held_out=1", r"unknown key compute\.held_out; did you mean data\.held_out\?"),
        ("optimizer.xyz=1", r"unknown key optimizer\.xyz; the keys of optimizer are kind, lr, .* ema$"),
        ("steps.more.and=1", "steps holds a single value"),
        (
            "data.clips.flip=1",
            r"unknown key data\.clips\.flip; did you mean data\.flip\? \(the keys of data\.clips are ",
        ),
        ("steps=-1", "steps: .*greater than 0, found -1"),
        ("learn.part=space", "'spatial', 'temporal' or 'all', found 'space'"),
        ("data.clips.domian=clean", r"unknown key data\.clips\.domian; did you mean data\.clips\.domain\?"),
        ("data.clips={kind: webvd}", r"data\.clips\.kind: expected one of folder, webvid, .*found 'webvd'"),
        ("data.clips={path: x}", r"data\.clips\.kind: expected one of"),
        ("data.lengths=[[16, 8, 1]]", r"\[frames, smallest stride, largest stride\]"),
        ("data.width=60", r"data\.width: .*multiple of 8"),
        ("sampling.stepz=3", r"unknown key sampling\.stepz; did you mean sampling\.steps\?"),
        ("diffusion.image_fps=[30, 4]", r"diffusion\.image_fps: must be \[lowest, highest\]"),
        ("optimizer.betas=[0.9, 1.5]", r"optimizer\.betas: must be two numbers from 0 to below 1"),
        ("seed=4294967296", "seed: .*less than 2147483648"),
        ("learn.part=temporal", "a fresh UNet's output layer is zero and spatial"),
        ("learn.how=lora", "a fresh UNet's output layer is zero and spatial"),
        ("data.images={kind: webvid, csv: a, videos: b}", "webvid lists clips"),
        ("data.clips={kind: folder, path: a, prepared: moments}", "name one length, or prepared: no"),
        ("init.sd=a.safetensors", None),
        ("validation.quantiles=[1.5]", "from 0 to below 1"),
        ("steps", "not of the form key=value"),
        ("steps=[", "is not YAML"),
        ("steps.more=1", "steps holds a single value"),
        ("name=''", r"name: the run's folder below --runs is called so; expected a name such as my-style, found ''"),
        ("name=..", r"name: .* found '\.\.'"),
        ("name=/tmp/x", r"name: .* found '/tmp/x'"),
        ('name="a\\0b"', r"name: .* found 'a\\x00b'"),
        ("optimizer.lr=.inf", r"optimizer\.lr: .*finite number, found inf"),
        ("networks.unet={channel_mult: 5}", r"networks\.unet: channel_mult: .*valid tuple, found 5"),
        ("networks.unet.num_res_blocks=two", r"networks\.unet: num_res_blocks: .*valid integer.*, found 'two'"),
        ("networks.unet.bogus=1", r"networks\.unet: there is no bogus; the fields are in_channels, out_channels, "),
        (
            "networks.text.channel_mult=[1]",
            r"networks\.text: there is no channel_mult; the fields are context_length, ",
        ),
    ],
)
def test_errors_name_the_key(override, message):
    if message is None:
        with pytest.raises(RecipeError, match="unet and sd are both set"):
            load_recipe(TINY / "F-base.yaml", [override])
        return
    with pytest.raises(RecipeError, match=message):
        load_recipe(TINY / "base.yaml", [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "is not YAML"),
        ("- 1\n- 2", "holds a list"),
        ("steps: 1", "name: Field required"),
        ("base: 5", "base: expected the name of a file, such as _stage2.yaml, found 5"),
        ("base: [a.yaml]", r"base: expected the name of a file, .* found \['a\.yaml'\]"),
        ("name: \udcff", "is not YAML: .*can't decode byte 0xff"),
    ],
)
def test_what_is_no_recipe_is_said_to_be_none(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecipeError, match=rf"bad\.yaml.*{message}"):
        load_recipe(tmp_path / "bad.yaml")


def test_images_that_would_teach_nothing_are_refused():
    with pytest.raises(RecipeError, match="bypass leaves images nothing temporal to teach"):
        load_recipe(TINY / "P-base.yaml", ["diffusion.image_temporal=bypass"])


def test_recipes_inherit(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nsteps: 4\nbatch: 2\ndata: {clips: {kind: procedural, count: 5}}\noptimizer: {warmup: 2}\n"
    )
    (tmp_path / "row.yaml").write_text(
        "base: base.yaml\nname: row\noptimizer: {lr: 5e-1}\ndata: {clips: {kind: folder, path: x}}\n"
    )
    row = load_recipe(tmp_path / "row.yaml", ["seed=3"])
    assert (row.name, row.optimizer.lr, row.optimizer.warmup, row.seed) == ("row", 0.5, 2, 3)
    assert (row.data.clips.kind, row.data.clips.path) == ("folder", Path("x"))


def test_a_recipe_cannot_be_its_own_base(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(RecipeError, match="its own base"):
        load_recipe(tmp_path / "a.yaml")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "vc2.training", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_missing_start_is_one_line_not_a_traceback(tmp_path):
    result = run(
        "run",
        str(TINY / "base.yaml"),
        "--runs",
        str(tmp_path),
        "init.text=absent.safetensors",
        "init.autoencoder=absent.safetensors",
    )
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == "error: absent.safetensors: no such checkpoint file"
