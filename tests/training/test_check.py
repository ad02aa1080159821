"""`check`: what a recipe costs, and all that is wrong with it, before anything runs."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file

from tests.training.runs import quiet_logs, say  # noqa: F401 (the former is a fixture of this module, too)
from tests.training.sources import broken_folder
from vc2.files.checkpoint import VAE
from vc2.networks.autoencoder import AutoencoderKL


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


@pytest.mark.slow
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


def test_a_check_asks_for_a_batch_that_divides(recipe_file, folder, capsys):
    code, _, err = say(capsys, "check", recipe_file(), "--runs", folder.parent, "--processes", "3")
    assert code == 2
    assert "batch 2 does not divide into 3 processes x compute.micro_batch 1; make it a multiple of 3" in err
    code, _, err = say(capsys, "check", recipe_file(), "--runs", folder.parent, "--card", "")
    assert (code, "--card  is not known; use one of " in err) == (2, True)
