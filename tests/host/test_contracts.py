"""What newer versions of ComfyUI ask of a pack, asked on any version: each of these broke on one of them.

`newer.py` says which; on a ComfyUI that does it itself nothing is put in its place.
"""

from __future__ import annotations

import pytest
import torch

from bench import cards
from tests import standin
from tests.host.graphs import SAME
from tests.host.inside import observed_inside
from tests.vc2.loras import turbo_list

PRECISIONS = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("contracts")
    for name in ("float32", "float16", "bfloat16"):
        standin.write(folder / f"{name}.safetensors", dtype=getattr(torch, name))
    torch.save([0.05 * t for t in turbo_list(standin.unet_config("vc2_tiny"))], folder / "turbo.pt")
    return observed_inside("contracts", folder)


@pytest.mark.parametrize("patcher", ["dynamic", "plain"])
@pytest.mark.parametrize("asked", PRECISIONS)
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_linears_that_load_lazily(observed, stored, asked, patcher):
    """They take the file's precision; the model has the one that was asked for, in size too, and samples the same."""
    found = observed["lazy"][f"{stored} {asked} {patcher}"]
    assert found["precisions"] == [asked]
    assert found["bytes"] == observed["lazy"]["float32 float32 plain"]["bytes"] * PRECISIONS[asked] // 4
    assert found["difference"] < SAME


def test_what_the_host_sets_aside_is_what_the_table_of_cards_says(observed):
    """The host: pixels of all frames x bytes x hundredths of a MiB."""
    assert cards.need(1, 1, (8, 8)) == pytest.approx(cards.HALF * 0.01 * observed["memory usage factor"] * 2**20)


@pytest.mark.parametrize("weights", ["as they are", "cast", "patched", "padded"])
def test_convolutions_over_time_are_computed_as_ones_of_images(observed, weights):
    """However the host comes to their weights."""
    assert observed["convolutions"][weights]["axes"] == [4]
    assert observed["convolutions"][weights]["difference"] < 0.01  # two of them have weights rounded to float16


@pytest.mark.parametrize(("name", "family"), [("plain", "VideoCrafter2"), ("turbo", "T2V-Turbo")])
def test_weights_that_are_patched_as_they_are_saved(observed, name, family):
    found = observed["saving"][name]
    assert found["family"] == family
    assert found["clip"] < 1e-3  # the host rounds patched weights by chance
    assert found["text"] < SAME


def test_the_patcher_is_the_hosts_choice(observed):
    assert observed["loading anew"]["class"].startswith("Dynamic")
    assert observed["loading anew"]["read from the file"]


@pytest.mark.parametrize("part", ["MODEL", "CLIP", "VAE"])
def test_hooks_compilers_and_further_gpus_load_anew(observed, part):
    found = observed["loading anew"][part]
    assert found["copied"]
    assert found["equal"]
    if part != "VAE":  # the host's VAE decides by itself
        assert found["classes"] == ["DynamicPatcher", "ModelPatcher"]


def test_what_is_loaded_anew_samples_the_same(observed):
    assert observed["loading anew"]["clip"] < SAME
    assert observed["loading anew"]["precision"] == ["float8_e4m3fn"]


def test_the_stock_windows_leave_freenoise_to_the_handler(observed):
    """Each clip of a batch is shuffled within itself, in the order that the run's seed gives."""
    assert observed["windows"]["FreeNoise"] < SAME
    assert observed["windows"]["noise moved"] > 0.1


def test_stock_windows_with_split_prompts(observed):
    """Of three prompts, windows in the first third of a clip read the first; there is none in the middle third."""
    assert observed["windows"]["split prompts"] < SAME
    assert observed["windows"]["between the prompts"] > 0.01


@pytest.mark.parametrize("name", ["cond_retain_index_list", "latent_retain_index_list"])
def test_stock_windows_that_keep_an_image_are_refused_by_name(observed, name):
    assert observed["windows"]["refusals"][name].startswith(f"Context Windows: {name} would keep an image")


def test_a_frame_before_each_stock_window_is_left_out(observed):
    assert observed["windows"]["causal_window_fix"] < SAME


def test_output_patches_that_return_no_skip(observed):
    assert observed["patches"]["no skip"] < SAME


def test_patches_after_the_middle_block(observed):
    """They see every frame in the batch, both conditions in it: 2 x 8 rows of everything."""
    found = observed["patches"]
    assert found["middle times"]["1.0"] < SAME
    assert found["middle times"]["1.5"] > 0.01
    assert set(found["middle sees"]["rows"].values()) == {16}
    assert found["middle sees"]["block"] == ["middle", 0]
    assert found["middle sees"]["y"] is None
