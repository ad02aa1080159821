"""Files: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import standin
from tests.fixtures import manifest, relative_rms
from vc2.files import checkpoint
from vc2.files.checkpoint import TEXT, UNET, VAE, CheckpointError
from vc2.sampling.schedule import NoiseSchedule


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return standin.write(tmp_path_factory.mktemp("checkpoints") / "whole.safetensors")


@pytest.fixture
def state(whole):
    return checkpoint.read_tensors(whole)


def test_round_trip(whole, tmp_path):
    loaded = checkpoint.load(whole)
    assert loaded.config.family == "VideoCrafter2"
    assert (loaded.text_config.width, loaded.text_config.heads, loaded.vae_config.ch) == (64, 4, 32)
    again = checkpoint.load(
        checkpoint.save(
            tmp_path / "again.safetensors", unet=loaded.unet, vae=loaded.vae, text=loaded.text, schedule=loaded.schedule
        )
    )
    assert again.config == loaded.config
    for part in ("unet", "vae", "text"):
        before, after = getattr(loaded, part), getattr(again, part)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(again.schedule.scale, loaded.schedule.scale)


def test_saved_names_are_the_official_ones(whole):
    """The schedule's buffers have the official names and shapes too."""
    official = {k: tuple(v) for k, v in manifest()["vc2"].items() if not k.startswith((UNET, VAE, TEXT))}
    found = {
        k: tuple(t.shape) for k, t in checkpoint.read_tensors(whole).items() if not k.startswith((UNET, VAE, TEXT))
    }
    assert found == official


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"module": {f"_forward_module.{k}": t for k, t in s.items()}}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_layouts(state, tmp_path, wrap, zipped):
    torch.save(wrap(state), tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    loaded = checkpoint.load(tmp_path / "model.ckpt")
    assert len(loaded.unet) == 626
    assert loaded.vae
    assert loaded.text


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", UNET])
def test_unet_only(state, tmp_path, prefix):
    unet = {prefix + name.removeprefix(UNET): t for name, t in state.items() if name.startswith(UNET)}
    torch.save(unet, tmp_path / "unet.pt")
    loaded = checkpoint.load(tmp_path / "unet.pt")
    assert (loaded.vae, loaded.text) == (None, None)
    assert relative_rms(loaded.schedule.scale, NoiseSchedule(0.7).scale) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(whole, dtype):
    assert {t.dtype for t in checkpoint.load(whole, dtype).unet.values()} == {dtype}


def test_scale_array_is_honoured(state, tmp_path):
    state["scale_arr"] = torch.linspace(1, 0.5, 1400)
    torch.save(state, tmp_path / "model.ckpt")
    assert torch.equal(checkpoint.load(tmp_path / "model.ckpt").schedule.scale, torch.linspace(1, 0.5, 1400)[:1000])


@pytest.mark.parametrize("case", ["vc1_512_tiny", "vc1_1024_tiny"])
def test_videocrafter1(tmp_path, case):
    path = standin.write(tmp_path / "vc1.safetensors", case, NoiseSchedule(None))
    loaded = checkpoint.load(path)
    assert loaded.config.use_relative_position
    assert not loaded.schedule.rescaled
    tensors = load_file(path)
    del tensors["scale_arr"]
    save_file(tensors, path)
    assert checkpoint.load(path).schedule.rescaled == (
        case == "vc1_1024_tiny"
    )  # without it: what the family was trained with


class Mischief:
    """A pickle that would leave a trace if it were executed."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_a_pickle_with_code_is_refused_unread(tmp_path, state):
    trace = tmp_path / "executed"
    torch.save({"state_dict": state, "callbacks": Mischief(trace)}, tmp_path / "model.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Mischief(trace), protocol=2))
    (tmp_path / "new.ckpt").write_bytes(pickle.dumps(Mischief(trace), protocol=4))
    with pytest.raises(CheckpointError, match=r"new\.ckpt is not a PyTorch checkpoint"):
        checkpoint.load(tmp_path / "new.ckpt")
    for name in ("model.ckpt", "raw.ckpt"):
        with pytest.raises(CheckpointError, match=rf"{name} holds more than tensors \(\w+\.mkdir\)"):
            checkpoint.load(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html>", "is a text file, not weights.*it is a web page; download the file"),
        (b"Entry not found", "is a text file, not weights.*give the file with the weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a text file, not weights.*git lfs pull"),
        (bytes(range(256)) * 4, "is not a PyTorch checkpoint.*download it again"),
        (b"\x80\x02garbage", "is not a PyTorch checkpoint.*download it again"),
    ],
)
def test_what_is_no_checkpoint_is_not_called_dangerous(tmp_path, content, says):
    (tmp_path / "page.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"page\.ckpt {says}"):
        checkpoint.load(tmp_path / "page.ckpt")


@pytest.mark.parametrize(
    "name",
    [
        "input_blocks.1.0.in_layers.2.weight",
        "input_blocks.1.1.proj_in.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "input_blocks.1.2.proj_in.weight",
        "init_attn.0.proj_in.weight",
        "fps_embedding.0.weight",
        "input_blocks.2.0.op.weight",
        "out.2.weight",
    ],
)
def test_one_missing_tensor_is_named(state, tmp_path, name):
    """Also where it is one that the family or a width is told from."""
    del state[UNET + name]
    torch.save(state, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=rf"1 missing tensor \({UNET}{name}\)"):
        checkpoint.load(tmp_path / "bad.ckpt")


def test_a_family_of_its_own_is_refused(state, tmp_path):
    """VideoCrafter2 without its temporal convolutions is not VideoCrafter1."""
    torch.save({name: t for name, t in state.items() if "temopral_conv" not in name}, tmp_path / "neither.ckpt")
    with pytest.raises(CheckpointError, match="neither temporal convolutions"):
        checkpoint.load(tmp_path / "neither.ckpt")


def damaged(state, how):
    if how == "shape":
        state[UNET + "out.2.bias"] = torch.zeros(5)
    elif how == "unexpected":
        state[UNET + "input_blocks.1.9.weight"] = torch.zeros(1)
    elif how == "foreign":
        state["image_proj_model.latents"] = torch.zeros(1)
    elif how == "missing text":
        del state[TEXT + "ln_final.weight"]
    elif how == "image to video":
        state[UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight"] = torch.zeros(1)
    return state


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("shape", r"out\.2\.bias has shape \(5,\), expected \(4,\)"),
        ("unexpected", r"1 unexpected tensor .*input_blocks\.1\.9\.weight"),
        ("foreign", "unexpected tensor .*image_proj_model"),
        ("missing text", "1 missing tensor .*ln_final.weight"),
        ("image to video", "image-to-video is not supported"),
    ],
)
def test_damaged_files_are_named(state, tmp_path, how, says):
    torch.save(damaged(state, how), tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt.*" + says):
        checkpoint.load(tmp_path / "bad.ckpt")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_truncated_files(whole, state, tmp_path, suffix, keep):
    source = whole
    if suffix == ".ckpt":
        source = tmp_path / "whole.ckpt"
        torch.save(state, source)
    data = source.read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(CheckpointError, match="ownload it again"):
        checkpoint.load(tmp_path / f"cut{suffix}")


def test_other_models_are_named(tmp_path):
    torch.save(
        {name: torch.zeros(()).expand(shape) for name, shape in manifest()["sd21_unet"].items()}, tmp_path / "sd21.ckpt"
    )
    with pytest.raises(CheckpointError, match="Stable Diffusion image UNet"):
        checkpoint.load(tmp_path / "sd21.ckpt")
    torch.save({"decoder.weight": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"holds no UNet.*top-level names: decoder"):
        checkpoint.load(tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="holds a list"):
        checkpoint.load(tmp_path / "list.ckpt")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "absent.ckpt")


def test_saving_is_whole_or_not_at_all(whole, tmp_path, monkeypatch):
    target = tmp_path / "model.safetensors"
    target.write_bytes(b"the previous checkpoint")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(target, unet=checkpoint.load(whole).unet)
    assert target.read_bytes() == b"the previous checkpoint"
    assert list(tmp_path.iterdir()) == [target]
