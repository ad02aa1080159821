"""What a person types: prepare, check, run, export, merge."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.test_data import broken_folder, picture
from tests.training.test_distributed import together
from vc2.files import checkpoint, lora
from vc2.files.checkpoint import UNET, VAE
from vc2.files.merge import merge
from vc2.files.video import write_video
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.unet import VideoUNet
from vc2.training import __main__ as command
from vc2.training import checkpoint as runs
from vc2.training import prepare as preparing
from vc2.training.data.prepared import Prepared, cache_folder
from vc2.training.data.stream import Stream
from vc2.training.errors import RecipeError
from vc2.training.initialise import sampling_of
from vc2.training.loop import Trainer
from vc2.training.partition import temporal_names
from vc2.training.prepare import prepare
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import BUNDLED, load_recipe
from vc2.training.rng import SAMPLE, numpy_generator
from vc2.training.sources import source
from vc2.training.sources.source import SourceError
from vc2.training.sources.world import World

TINY = BUNDLED / "tiny"


def say(capsys, *arguments: object) -> tuple[int, str, str]:
    code = command.run_command([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture
def trained(recipe, recipe_file, folder, start):
    """A finetuned run of a whole checkpoint, and how to name it on the command line."""

    def train(**changes):
        path = recipe_file(steps=3, init={"unet": start}, optimizer={"lr": 0.01, "warmup": 0}, **changes)
        Trainer(load_recipe(path), folder).run()
        return path

    return train


# prepare


def test_prepared_moments_are_the_autoencoder_s_own(recipe, folder, cache):
    trainer = Trainer(recipe(), folder)
    stream = trainer.objective.streams["clips"]
    assert isinstance(stream.source, Prepared)
    world = World("clean", "clips", 40)
    for index in (0, 7, 39):
        pixels, caption = world.sample(index)
        stored = stream.source.sample(index)
        assert stored.caption == caption
        assert not stored.frozen
        assert stored.frames.dtype == torch.float16
        assert torch.allclose(stored.frames.float(), trainer.objective.encoders.moments(pixels), atol=2e-2)
        assert torch.allclose(stored.text.float(), trainer.objective.encoders.text([caption])[0], atol=1e-2)
    assert torch.allclose(stream.source.empty_text.float(), trainer.objective.encoders.text([""])[0], atol=1e-2)


def test_an_interrupted_preparation_goes_on(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "SHARD", 8)
    settings, whole, parted = recipe(data={"clips": None}), tmp_path / "whole", tmp_path / "parted"
    [expected] = prepare(settings, whole)
    real, encoded = preparing.Encoders.moments, []

    def interrupted(encoders, pixels):
        encoded.extend(pixels)
        if len(encoded) > 3 * 8:  # in the middle of the fourth
            assert list(parted.rglob("*.tmp"))
            raise KeyboardInterrupt
        return real(encoders, pixels)

    monkeypatch.setattr(preparing.Encoders, "moments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, parted)
    assert not list(parted.rglob("*.tmp"))
    written = sorted(parted.rglob("*.tar"))
    with pytest.raises(SourceError, match="of which 3 tars are there"):
        Trainer(settings, tmp_path / "run", parted)
    monkeypatch.setattr(preparing.Encoders, "moments", real)
    before = {path: path.stat().st_mtime_ns for path in written}
    [found] = prepare(settings, parted)
    assert {path: path.stat().st_mtime_ns for path in written} == before  # not again
    assert found.name == expected.name
    a, b = Prepared(expected, whole / "index"), Prepared(found, parted / "index")
    assert len(a) == len(b) == 40
    assert all(torch.equal(a.sample(i).frames, b.sample(i).frames) for i in range(40))


def test_clips_are_prepared_at_the_stride_that_the_network_is_told(recipe, tmp_path):
    """Real files: the stride is drawn once, when they are encoded, and is never taken twice."""
    for k in range(12):
        write_video(
            tmp_path / "clips" / f"{k}.mp4", np.random.default_rng(k).integers(0, 255, (24, 48, 64, 3), np.uint8), 24
        )
        (tmp_path / "clips" / f"{k}.txt").write_text(f"clip {k}")
    data = {
        "clips": {"kind": "folder", "path": str(tmp_path / "clips")},
        "images": None,
        "lengths": [[4, 2, 4]],
        "held_out": 0,
    }
    straight = recipe(data=data)
    settings = recipe(data={**data, "clips": {**data["clips"], "prepared": "moments and text"}})
    [folder] = prepare(settings, tmp_path / "cache")
    trainer = Trainer(settings, tmp_path / "runs" / "small", tmp_path / "cache")
    stream, strides = trainer.objective.streams["clips"], set()
    for index in range(12):
        sample = stream.read(index, 4, (2, 4), numpy_generator(1, index))
        assert sample.frames.shape == (4, 8, 8, 8)
        strides.add(24 / sample.fps)
        assert stream.source.sample(index).frozen
        drawn = numpy_generator(settings.seed, SAMPLE, 0, index)  # as it was when the clip was encoded
        pixels = Stream(straight, "clips", tmp_path / "cache").read(index, 4, (2, 4), drawn)
        assert pixels.fps == sample.fps
        assert torch.allclose(trainer.objective.encoders.moments(pixels.frames), sample.frames.float(), atol=2e-2)
    assert strides == {2, 3, 4}
    assert folder.name.startswith("folder-clips-")
    assert trainer.run()


def test_what_is_prepared_has_the_recipe_s_size(recipe, tmp_path):
    settings = recipe(
        data={
            "clips": None,
            "images": {"kind": "procedural", "count": 12, "prepared": "moments"},
            "width": 128,
            "height": 96,
        }
    )
    [folder] = prepare(settings, tmp_path / "cache")
    assert Prepared(folder, tmp_path / "cache" / "index").sample(0).frames.shape == (1, 8, 12, 16)


def test_crops_drawn_at_random_belong_to_their_seed(recipe):
    data = {"clips": None, "images": {"kind": "folder", "path": "x", "prepared": "moments"}}
    names = {"autoencoder": "a", "text": "b"}

    def place(crop, **changes):
        return cache_folder(recipe(data={**data, "crop": crop}, **changes), "images", "files", Path(), names)

    assert place("random", seed=1) != place("random", seed=2)
    assert place("center", seed=1) == place("center", seed=2)


def test_preparing_leaves_broken_files_out_and_names_them(recipe, tmp_path, monkeypatch):
    images = {"kind": "folder", "path": str(broken_folder(tmp_path, 12, 4)), "prepared": "moments"}
    settings = recipe(data={"clips": None, "images": images, "broken_share": 0.5, "held_out": 0})
    [folder] = prepare(settings, tmp_path / "cache")
    assert len(Prepared(folder, tmp_path / "cache" / "index")) == 12
    assert len((folder / "000000.skipped.txt").read_text().splitlines()) == 4
    Trainer(settings, tmp_path / "runs" / "small", tmp_path / "cache").run()
    monkeypatch.setattr(source, "ENOUGH", 16)
    for _ in range(2):  # the same command again does not make it right
        with pytest.raises(
            SourceError,
            match=(
                r"4 of 16 samples of data\.images could not be used, more than data\.broken_share allows;"
                r" .*\*\.skipped\.txt"
            ),
        ):
            prepare(recipe(data={"clips": None, "images": images, "broken_share": 0.1}), tmp_path / "other")


def test_files_of_a_list_that_were_mended_are_encoded(recipe, tmp_path, monkeypatch):
    """By the command that the refusal asks for. Of those of a list the cache's name says nothing."""
    monkeypatch.setattr(preparing, "SHARD", 4)
    monkeypatch.setattr(source, "ENOUGH", 16)
    photos = broken_folder(tmp_path, 10, 6)  # in the last two tars of four
    rows = "".join(f"{n:03d}.png,photo {n}\n" for n in range(16))
    (photos / "list.csv").write_text(f"path,caption\n{rows}")
    images = {"kind": "manifest", "path": str(photos / "list.csv"), "prepared": "moments"}
    settings = recipe(data={"clips": None, "images": images, "broken_share": 0.1, "held_out": 0})
    with pytest.raises(SourceError, match=r"6 of 16 samples .* Mend them, or take them out of the source, and prepare"):
        prepare(settings, tmp_path / "cache")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    for n in range(10, 15):
        (photos / f"{n:03d}.png").write_bytes(picture(n))
    [folder] = prepare(settings, tmp_path / "cache")
    assert len(Prepared(folder, tmp_path / "cache" / "index")) == 15
    assert [path.name for path in folder.glob("*.skipped.txt")] == ["000003.skipped.txt"]
    again = [path.name for path in folder.glob("*.tar") if path.stat().st_mtime_ns != before[path.name]]
    assert sorted(again) == ["000002.tar", "000003.tar"]


def test_the_share_of_broken_files_is_of_all_of_them_whoever_read_them(recipe, tmp_path, monkeypatch):
    """Begun by one process, ended by two: the second would find its own half of the files twice as bad."""
    monkeypatch.setattr(preparing, "SHARD", 4)
    monkeypatch.setattr(source, "ENOUGH", 8)
    images = {
        "kind": "folder",
        "path": str(broken_folder(tmp_path, 12, 4)),
        "prepared": "moments",
    }  # the broken ones are in the last tar
    settings = recipe(data={"clips": None, "images": images, "broken_share": 0.3, "held_out": 0})
    real = preparing._write_tar
    monkeypatch.setattr(
        preparing,
        "_write_tar",
        lambda path, *rest: real(path, *rest) if path.name < "000002" else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, tmp_path / "cache")
    monkeypatch.setattr(preparing, "_write_tar", real)
    together(2, lambda rank: prepare(settings, tmp_path / "cache"))
    [folder] = prepare(settings, tmp_path / "cache")
    assert len(Prepared(folder, tmp_path / "cache" / "index")) == 12


def test_other_files_are_another_cache(recipe, tmp_path):
    source = broken_folder(tmp_path, 12, 0)
    settings = recipe(
        data={
            "clips": None,
            "images": {"kind": "folder", "path": str(source), "prepared": "moments and text"},
            "held_out": 0,
        }
    )
    [first] = prepare(settings, tmp_path / "cache")
    assert prepare(settings, tmp_path / "cache") == [first]
    (source / "003.txt").write_text("another caption")
    with pytest.raises(SourceError, match="not finished"):
        Trainer(settings, tmp_path / "run", tmp_path / "cache")
    [second] = prepare(settings, tmp_path / "cache")
    assert second != first
    assert Prepared(second, tmp_path / "cache" / "index").sample(3).caption == "another caption"


def test_nothing_to_prepare_says_so(recipe, tmp_path):
    with pytest.raises(RecipeError, match="prepares nothing"):
        prepare(recipe(data={"clips": None, "images": {"kind": "procedural"}}), tmp_path)


# check


def test_check_reports_and_finds_what_is_wrong(recipe_file, folder, tmp_path, capsys):
    code, out, _ = say(capsys, "check", recipe_file(), "--runs", folder.parent)
    assert code == 0
    for word in ("40 procedural samples", "M parameters", "TFLOP a clip", "A100-hours", "GB a process"):
        assert word in out
    photos = {"kind": "folder", "path": str(broken_folder(tmp_path, 0, 4))}
    code, _, err = say(capsys, "check", recipe_file(data={"clips": None, "images": photos}), "--runs", folder.parent)
    assert (code, "data.images: 4 of the 4 samples that were tried cannot be used" in err) == (2, True)
    code, _, err = say(capsys, "check", recipe_file(), "--runs", folder.parent, "init.text=absent.ckpt")
    assert (code, err.strip()) == (2, "error: absent.ckpt: no such checkpoint file")


@pytest.mark.parametrize(("good", "bad", "fails"), [(3, 2, True), (19, 1, False), (18, 2, True), (5, 0, False)])
def test_check_fails_where_too_much_is_broken(recipe_file, folder, tmp_path, capsys, good, bad, fails):
    """More than data.broken_share of the samples that were tried, each of them once."""
    photos = broken_folder(tmp_path, good, bad)
    data = {"clips": None, "images": {"kind": "folder", "path": str(photos)}, "held_out": 0}
    code, out, err = say(capsys, "check", recipe_file(data=data), "--runs", folder.parent)
    report, tried = err if fails else out, good + bad
    assert code == (2 if fails else 0)
    if not bad:
        assert f"data.images: {tried} samples tried, all can be used" in report
        return
    assert f"data.images: {bad} of the {tried} samples that were tried cannot be used" in report
    assert ("more than data.broken_share (5%) allows" in report) == fails
    for path in sorted(photos.glob("*.png"))[good:]:
        assert f"{path} is not a picture that can be read" in report


@pytest.mark.parametrize(("bad", "fails"), [(9, False), (40, True)])
def test_a_few_broken_samples_of_a_large_source_are_told_and_no_reason_to_fail(
    recipe_file, folder, tmp_path, capsys, bad, fails
):
    """The run judges by its own count, from two hundred samples on."""
    data = {"clips": None, "images": {"kind": "folder", "path": str(broken_folder(tmp_path, 60 - bad, bad))}}
    code, out, err = say(capsys, "check", recipe_file(data=data), "--runs", folder.parent)
    assert code == (2 if fails else 0)
    assert "of the 20 samples that were tried cannot be used" in (err if fails else out)


def test_check_tries_no_more_of_a_large_source_than_it_needs(recipe_file, folder, tmp_path, capsys):
    photos = broken_folder(tmp_path, 50, 0)
    data = {"clips": None, "images": {"kind": "folder", "path": str(photos)}}
    assert "data.images: 20 samples tried" in say(capsys, "check", recipe_file(data=data), "--runs", folder)[1]


def test_an_image_is_written_with_its_article(recipe_file, folder, capsys):
    """And so is a clip."""
    for data, words in (({"clips": None}, "TFLOP an image, forward and backward"), ({}, "TFLOP a clip, forward")):
        assert words in say(capsys, "check", recipe_file(data=data), "--runs", folder.parent)[1]


def test_check_names_all_that_is_wrong_at_once(recipe_file, folder, tmp_path, capsys):
    clips, photos = ({"kind": "folder", "path": str(tmp_path / name)} for name in ("clips", "photos"))
    recipe = recipe_file(data={"clips": clips, "images": photos}, optimizer={"warmup": 6}, samples={"every": 2})
    code, out, err = say(capsys, "check", recipe, "--runs", folder.parent, "init.text=absent.ckpt")
    assert code == 2
    assert err.startswith("error: 3 things are wrong:")
    for word in ("clips: no such folder", "photos: no such folder", "absent.ckpt: no such checkpoint file"):
        assert word in err
    for word in (
        "optimizer.warmup is 6 of 6 steps",
        "samples.prompts is empty",
        "A100-hours",
    ):  # and the rest of the report is there
        assert word in out


def test_sizes_that_the_autoencoder_has_no_latents_of_are_named(recipe_file, folder, tmp_path, capsys):
    network = AutoencoderKL({"ch": 32, "ch_mult": (1, 1, 1, 1, 1), "num_res_blocks": 1})
    by_16 = tmp_path / "by-16.safetensors"
    save_file({VAE + name: tensor for name, tensor in network.state_dict().items()}, by_16)
    recipe = recipe_file(data={"width": 72, "buckets": [[64, 40]]}, sampling={"height": 24})
    wrong = "data.width 72, data.buckets 40, sampling.height 24: the autoencoder of"
    for verb in ("check", "prepare", "run"):
        code, _, err = say(capsys, verb, recipe, "--runs", folder.parent, f"init.autoencoder={by_16}")
        assert code == 2
        assert wrong in err, verb
        assert "use multiples of 16" in err, verb
    for key, size in (("data.width", "70"), ("data.buckets", "[[64, 70]]"), ("sampling.height", "70")):
        code, _, err = say(capsys, "check", recipe, "--runs", folder.parent, f"{key}={size}")
        assert code == 2, key
        assert f"{key}: " in err, key
        assert "70" in err, key


# export and merge


def test_a_lora_run_exports_its_lora_and_merging_it_is_the_full_export(trained, folder, start, capsys, tmp_path):
    path = trained(learn={"part": "spatial", "how": "lora", "rank": 2})
    assert (
        say(
            capsys,
            "export",
            path,
            "--runs",
            folder.parent,
            "--form",
            "lora",
            "--dtype",
            "fp32",
            "-o",
            tmp_path / "lora.safetensors",
        )[0]
        == 0
    )
    assert (
        say(capsys, "export", path, "--runs", folder.parent, "--dtype", "fp32", "-o", tmp_path / "full.safetensors")[0]
        == 0
    )
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
        assert (
            say(
                capsys,
                "export",
                path,
                "--runs",
                folder.parent,
                "--form",
                form,
                "--dtype",
                "fp32",
                "-o",
                tmp_path / f"{form}.safetensors",
            )[0]
            == 0
        )
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


def test_recipes_of_a_folder_without_any_is_an_error(tmp_path, capsys):
    assert say(capsys, "recipes", tmp_path)[0] == 2
    assert say(capsys, "recipes", tmp_path / "absent") == (2, "", f"error: {tmp_path / 'absent'}: no such folder\n")


@pytest.mark.parametrize("name", ["run", "recipes", "check", "prepare", "profile", "export", "merge"])
def test_every_argument_says_what_it_is(name, capsys):
    with pytest.raises(SystemExit):
        command.parse([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    options = [line for line in lines if re.match(r"  (-|[a-z])", line)]
    assert len(options) > 1
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line in options:
            assert re.search(r"\S {2,}\S", line) or after.startswith(" " * 10), line


def test_overrides_may_stand_behind_options(capsys):
    with pytest.raises(SystemExit):
        command.parse(["run", "x.yaml", "--runs", "r", "--stepps", "3"])
    assert "unrecognized arguments: --stepps" in capsys.readouterr().err
    assert command.parse(["run", "x.yaml", "a=1", "--runs", "r", "b=2"]).overrides == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "0"], "--processes: expected a whole number from 1 on, found '0'"),
        (["--processes", "-2"], "--processes: expected a whole number from 1 on, found '-2'"),
        (["--memory", "0"], "--memory: expected gigabytes, such as 24, found '0'"),
        (["--memory", "24GB"], "--memory: expected gigabytes, such as 24, found '24GB'"),
    ],
)
def test_options_that_are_no_numbers_of_theirs_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        command.parse(["check", "F-base", *options])
    assert message in capsys.readouterr().err


def test_a_check_asks_for_a_batch_that_divides(recipe_file, folder, capsys):
    code, _, err = say(capsys, "check", recipe_file(), "--runs", folder.parent, "--processes", "3")
    assert code == 2
    assert "batch 2 does not divide into 3 processes x compute.micro_batch 1; make it a multiple of 3" in err
    code, _, err = say(capsys, "check", recipe_file(), "--runs", folder.parent, "--card", "")
    assert (code, "--card  is not known; use one of " in err) == (2, True)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"x" * 99])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    runs.save(tmp_path, 1, {"weights": torch.zeros(1000)}, keep=2)
    path = runs.path_of(tmp_path, 2)
    path.write_bytes(damage(runs.path_of(tmp_path, 1).read_bytes()))
    with pytest.raises(
        RecipeError, match=rf"{path.name} is not a whole checkpoint \(.*remove it: the run then goes on"
    ):
        runs.load(tmp_path)
    path.unlink()
    assert runs.load(tmp_path)["step"] == 1


@pytest.fixture(autouse=True)
def quiet_logs():
    yield
    logging.getLogger().handlers.clear()
