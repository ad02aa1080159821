"""Checkpoints that were read wrong, for ever or with a traceback: each is read right, or refused by name."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from tests import standin
from tests.fixtures import manifest
from tests.fuzz import originals
from vc2.files import checkpoint
from vc2.files.checkpoint import TEXT, UNET, VAE, CheckpointError
from vc2.files.foreign import foreign_model
from vc2.networks.config import AutoencoderConfig, TextConfig, UNetConfig
from vc2.networks.detection import UnsupportedCheckpointError
from vc2.pipeline import TextToVideo


@pytest.fixture
def state():
    return originals.checkpoint_state()


def refusal(path, content=None):
    """The one line that refuses a file, which is written first where `content` is a state dict."""
    if content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as raised:
        checkpoint.load(path)
    assert str(raised.value).startswith(str(path))
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def same(path, state):
    loaded = checkpoint.load(path)
    parts = ((UNET, loaded.unet), (VAE, loaded.vae), (TEXT, loaded.text))
    found = {name: t for prefix, part in parts for name, t in checkpoint.prefixed(prefix, part).items()}
    return originals.equal(found, {name: t for name, t in state.items() if "." in name})


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_archive_that_was_packed_again_is_read_right(state, tmp_path, method):
    """Its numbers are not where a mapping of torch's own archives finds them."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(originals.zipped(originals.entries(originals.saved(state)), method))
    assert same(path, state)


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_that_are_not_aligned(state, tmp_path, zipped):
    """As they lie in the older format and in other programs' archives; some processors cannot compute with them."""
    content = originals.saved(state, zipped=False)
    if zipped:
        content = originals.zipped({"odd": b"x"} | originals.entries(originals.saved(state)))
    (tmp_path / "model.ckpt").write_bytes(content)
    assert same(tmp_path / "model.ckpt", state)
    tensors = checkpoint.read_tensors(tmp_path / "model.ckpt").values()
    assert all(t.data_ptr() % t.dtype.itemsize == 0 for t in tensors)


def test_what_compression_hides_is_bounded(state, tmp_path):
    """Zeros take no room in a file, and all of theirs in memory."""
    content = originals.entries(originals.saved({name: torch.zeros_like(t) for name, t in state.items()}))
    (tmp_path / "model.ckpt").write_bytes(originals.zipped(content, zipfile.ZIP_DEFLATED))
    assert "is compressed to less than half of what it holds" in refusal(tmp_path / "model.ckpt")


def test_a_directory_of_no_end(state, tmp_path):
    content = originals.entries(originals.saved(state)) | {f"archive/{n:010d}": b"" for n in range(75_000)}
    (tmp_path / "model.ckpt").write_bytes(originals.zipped(content))
    assert "its directory claims" in refusal(tmp_path / "model.ckpt")


@pytest.mark.parametrize("name", ["model.SAFETENSORS", "model.sft"])
def test_a_download_that_was_cut_is_told_by_its_ending(state, tmp_path, name):
    save_file(state, tmp_path / "whole")
    for length in (5, 1000):
        (tmp_path / name).write_bytes((tmp_path / "whole").read_bytes()[:length])
        assert f"({length} bytes) is not a complete safetensors file" in refusal(tmp_path / name)


def test_views_of_one_storage(state, tmp_path):
    """Some save tensors as pieces of a larger one, or transposed."""
    names = [name for name, t in state.items() if name.endswith("attn1.to_q.weight")]
    pieces = torch.cat([state[name].T.flatten() for name in names])
    offset, views = 0, dict(state)
    for name in names:
        rows, columns = state[name].shape
        views[name] = pieces[offset : offset + rows * columns].view(columns, rows).T
        offset += rows * columns
    for zipped in (True, False):
        torch.save(views, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
        assert same(tmp_path / "model.ckpt", state)


def test_mapped_weights_can_be_changed_without_changing_the_file(state, tmp_path):
    torch.save(state, tmp_path / "model.ckpt")
    before = (tmp_path / "model.ckpt").read_bytes()
    checkpoint.load(tmp_path / "model.ckpt").unet["out.2.bias"].zero_()
    assert (tmp_path / "model.ckpt").read_bytes() == before


@pytest.mark.parametrize("name", ["model.sft", "model.SAFETENSORS", "model.ckpt", "model"])
def test_the_content_tells_the_format(state, tmp_path, name):
    save_file(state, tmp_path / name, metadata={"sampling": "{}"})
    assert same(tmp_path / name, state)
    assert checkpoint.load(tmp_path / name).metadata == {"sampling": "{}"}
    torch.save(state, tmp_path / f"{name}.safetensors")
    assert same(tmp_path / f"{name}.safetensors", state)


def test_what_else_lies_in_a_training_checkpoint(state, tmp_path):
    """Optimizer state, versions, sets and the like are left unread."""
    parameter = torch.nn.Parameter(state[UNET + "out.2.bias"].float())
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    beside = {"epoch": 3, "optimizer": optimizer.state_dict(), "seen": {1, 2}, "size": torch.Size([1]), "bytes": b"x"}
    weights = {name: torch.nn.Parameter(t) if "." in name else t for name, t in state.items()}
    for zipped in (True, False):
        torch.save(beside | {"state_dict": weights}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
        assert same(tmp_path / "x.ckpt", state)


@pytest.mark.parametrize(
    "name",
    [
        UNET + "input_blocks.1.1.transformer_blocks.200000.norm1.weight",
        UNET + "input_blocks.3000000.0.in_layers.2.weight",
        VAE + "encoder.down.0.block.100000.conv1.weight",
        VAE + "encoder.down.100000.block.0.conv1.weight",
        TEXT + "transformer.resblocks.3000000.ln_1.weight",
        TEXT + f"transformer.resblocks.{'9' * 5000}.ln_1.weight",
        TEXT + "transformer.resblocks.02.ln_1.weight",
    ],
)
def test_indices_without_what_is_before_them(state, tmp_path, name):
    short = name.removeprefix(UNET).removeprefix(VAE).removeprefix(TEXT)[:60]
    message = refusal(tmp_path / "gap.ckpt", state | {name: torch.ones(32, 1, 1, 1)})
    assert short in message
    assert "is there and number" in message


def test_more_blocks_than_any_model_has():
    names = (f"transformer.resblocks.{n}.ln_1.weight" for n in range(1000))
    tower = dict.fromkeys(names, torch.ones(64)) | {
        "token_embedding.weight": torch.ones(8, 64),
        "positional_embedding": torch.ones(77, 64),
    }
    with pytest.raises(UnsupportedCheckpointError, match=r"resblocks\.64\..* is one of 1000 of its kind"):
        TextConfig.from_state_dict(tower)


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        (UNET + "input_blocks.0.0.weight", (32,), "has shape (32,); expected 4 dimensions or more"),
        (UNET + "input_blocks.0.0.weight", (0, 4, 3, 3), "has shape (0, 4, 3, 3), as no weights have"),
        (UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (64,), "expected 2 dimensions or more"),
        (UNET + "input_blocks.1.0.in_layers.2.weight", (), "has shape (); expected 1 dimensions or more"),
        (UNET + "out.2.weight", (2**21, 1, 1, 1), "has shape (2097152, 1, 1, 1), as no weights have"),
        (UNET + "out.2.weight", (1,) * 6, "as no weights have"),
        (VAE + "encoder.conv_in.weight", (32,), "expected 4 dimensions or more"),
        (VAE + "decoder.conv_in.weight", (32, 4), "expected 4 dimensions or more"),
        (TEXT + "token_embedding.weight", (64,), "expected 2 dimensions or more"),
        (TEXT + "positional_embedding", (), "expected 2 dimensions or more"),
    ],
)
def test_shapes_that_nothing_has(state, tmp_path, name, shape, complaint):
    message = refusal(tmp_path / "odd.ckpt", state | {name: torch.ones(shape)})
    assert complaint in message
    assert name.removeprefix(UNET).removeprefix(VAE).removeprefix(TEXT) in message


@pytest.mark.parametrize("network", [UNetConfig, AutoencoderConfig, TextConfig])
def test_a_width_of_nothing_without_a_file(network):
    """As the trainer asks, which reads parts of files."""
    prefix = {UNetConfig: UNET, AutoencoderConfig: VAE, TextConfig: TEXT}[network]
    state = checkpoint.take(originals.checkpoint_state(), prefix)
    first = {UNetConfig: "input_blocks.0.0.weight", AutoencoderConfig: "encoder.conv_in.weight"}
    name = first.get(network, "token_embedding.weight")
    state[name] = state[name][:0]
    with pytest.raises(UnsupportedCheckpointError, match=rf"{name} has shape \(0, "):
        network.from_state_dict(state)


def test_tensors_that_share_their_memory(state, tmp_path):
    """A file of a few bytes that would take any memory."""
    numbers = torch.ones(max(t.numel() for t in state.values()), dtype=torch.float16)
    shared = {name: numbers[: t.numel()].view(t.shape) if "." in name else t for name, t in state.items()}
    assert "many share their memory" in refusal(tmp_path / "shared.ckpt", shared)


def test_numbers_that_share_their_memory(state, tmp_path):
    """One bit of a stride, and a tensor is another."""
    name = UNET + "middle_block.1.proj_in.weight"
    rows, columns = state[name].shape
    for strides in ((0, 1), (columns, 0), (columns - 1, 1)):
        odd = torch.ones(rows * columns).as_strided((rows, columns), strides)
        assert f"numbers of {name} share their memory" in refusal(tmp_path / "x.ckpt", state | {name: odd})


def test_tensors_without_numbers(state, tmp_path):
    name = UNET + "out.2.bias"
    message = refusal(tmp_path / "meta.ckpt", state | {name: state[name].to("meta")})
    assert "_rebuild_meta_tensor_no_storage, and weights are plain tensors" in message
    message = refusal(tmp_path / "sparse.ckpt", state | {name: state[name].float().to_sparse()})
    assert "_rebuild_sparse_tensor" in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("part", [UNET + "out.2.bias", VAE + "decoder.conv_out.bias", TEXT + "ln_final.bias"])
def test_weights_are_floating_point(state, tmp_path, part, dtype):
    kind = str(dtype).removeprefix("torch.")
    message = refusal(tmp_path / "whole.ckpt", state | {part: torch.ones_like(state[part], dtype=dtype)})
    assert f"{part} holds {kind} numbers" in message


# fp8 e4m3 has no infinity; what torch writes in its place is NaN up to 2.11, and in 2.14 the largest number.
NOT_FINITE = [(torch.float8_e4m3fn, torch.nan)] + [
    (dtype, value)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2)
    for value in (torch.nan, torch.inf, -torch.inf)
]


@pytest.mark.parametrize(("dtype", "value"), NOT_FINITE)
def test_weights_are_finite(state, tmp_path, dtype, value):
    """One number in one tensor is enough."""
    name = UNET + "middle_block.1.proj_in.weight"
    weights = {other: t.to(dtype) if "." in other else t for other, t in state.items()}
    save_file(weights, tmp_path / "sound.safetensors")
    assert checkpoint.load(tmp_path / "sound.safetensors").unet["out.2.bias"].dtype == dtype
    broken = weights[name].float()
    broken[5, 7] = value
    save_file(weights | {name: broken.to(dtype)}, tmp_path / "broken.safetensors")
    assert f"{name} holds numbers that are not finite" in refusal(tmp_path / "broken.safetensors")


def test_a_part_is_checked_as_the_whole(state, tmp_path):
    """As the trainer reads an autoencoder or a text tower."""
    name = VAE + "decoder.conv_out.bias"
    for value, complaint in ((state[name].int(), "holds int32"), (state[name] * torch.nan, "not finite")):
        torch.save(state | {name: value}, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=rf"x\.ckpt: {name} .*{complaint}"):
            checkpoint.load_part(tmp_path / "x.ckpt", VAE, "init.autoencoder")


@pytest.mark.parametrize("value", [0.0, -0.5, torch.nan, torch.inf])
def test_the_rescale_is_positive(state, tmp_path, value):
    scale = torch.linspace(1, 0.7, 1400)
    scale[500] = value
    assert "scale_arr must be positive throughout" in refusal(tmp_path / "x.ckpt", state | {"scale_arr": scale})


def test_torchscript_and_tar_are_called_what_they_are(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "script.pt")
    assert "is a TorchScript program, not a checkpoint" in refusal(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    assert "is a tar archive, PyTorch's format of before 2018" in refusal(tmp_path / "old.pth")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("readme.txt", "the weights are elsewhere")
    assert "zip archive without PyTorch's data.pkl; it holds readme.txt" in refusal(tmp_path / "other.ckpt")


def test_another_byte_order_is_told(state, tmp_path):
    content = originals.entries(originals.saved(state))
    name = originals.pickle_name(content).replace("data.pkl", "byteorder")
    (tmp_path / "big.ckpt").write_bytes(originals.zipped(content | {name: b"big"}))
    assert "big-endian machine" in refusal(tmp_path / "big.ckpt")


def test_an_entry_of_another_size_is_told(state, tmp_path):
    """Mapped, its tensors would go on into the next entry."""
    content = originals.entries(originals.saved(state))
    root = originals.pickle_name(content).removesuffix("data.pkl")
    content[f"{root}data/7"] = content[f"{root}data/7"][:-2]
    (tmp_path / "short.ckpt").write_bytes(originals.zipped(content))
    assert f"data/7 has {len(content[f'{root}data/7'])} bytes" in refusal(tmp_path / "short.ckpt")


def test_names_that_are_no_text_make_one_line(state, tmp_path):
    message = refusal(tmp_path / "x.ckpt", state | {f"x\n\x1b[2J{'y' * 5000}": torch.ones(1)})
    assert r"x\n\x1b[2J" in message
    assert len(message) < 1000


UNETS = [*(f"input_blocks.{n}.0.in_layers.0.weight" for n in range(3)), "input_blocks.0.0.weight"]
MODELS = {
    "Stable Diffusion 1.5": ["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", *UNETS],
    "Stable Diffusion XL": ["conditioner.embedders.0.transformer.text_model.x", "label_emb.0.0.weight", *UNETS],
    "Stable Video Diffusion": ["conditioner.embedders.0.x", "input_blocks.1.0.time_stack.in_layers.0.weight", *UNETS],
    "Wan": ["patch_embedding.weight", "blocks.0.self_attn.q.weight", "head.modulation"],
    "Stable Diffusion 3": ["joint_blocks.0.context_block.attn.qkv.weight"],
    "Flux": ["double_blocks.0.img_attn.qkv.weight", "img_in.weight"],
    "HunyuanVideo": ["double_blocks.0.img_attn.qkv.weight", "txt_in.individual_token_refiner.blocks.0.norm1.weight"],
    "LTX-Video": ["patchify_proj.weight", "transformer_blocks.0.attn1.to_q.weight"],
    "an AnimateDiff motion module": ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
    "a ControlNet": ["control_model.input_hint_block.0.weight", *UNETS],
    "ModelScope's (or ZeroScope's) text-to-video model": ["input_blocks.0.1.norm.weight", *UNETS],
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
}


@pytest.mark.parametrize("prefix", ["", UNET])
@pytest.mark.parametrize("model", MODELS)
def test_other_models_are_called_by_their_name(tmp_path, model, prefix):
    names = (name if name.startswith(("cond", "lora_unet")) else prefix + name for name in MODELS[model])
    message = refusal(tmp_path / "x.ckpt", {name: torch.ones(1) for name in names})
    assert f"is {model}, not a VideoCrafter text-to-video checkpoint; use VideoCrafter2's model.ckpt" in message
    assert message.endswith("on top of that") == (model == "a LoRA")


@pytest.mark.parametrize(("width", "version"), [(768, "1.5"), (1024, "2.1"), (2048, "XL")])
def test_image_unets_by_their_texts_width(tmp_path, width, version):
    sd21 = {name: torch.zeros(()).expand(shape) for name, shape in manifest()["sd21_unet"].items()}
    for name in [name for name in sd21 if name.endswith("attn2.to_k.weight")]:
        sd21[name] = torch.zeros(()).expand(sd21[name].shape[0], width)
    message = refusal(tmp_path / "x.ckpt", sd21)
    assert f"is a Stable Diffusion image UNet ({version}: its text is {width} wide)" in message


def test_no_model_of_the_family_is_foreign():
    for case in ("vc2", "vc1_512", "vc1_1024"):
        official = {name: torch.empty(shape, device="meta") for name, shape in manifest()[case].items()}
        assert foreign_model(official) is None
    assert foreign_model(originals.checkpoint_state()) is None
    assert foreign_model(checkpoint.take(originals.checkpoint_state(), UNET)) is None


def test_parts_of_two_models_are_told(tmp_path):
    path = standin.write(tmp_path / "mixed.safetensors", "vc2_base_narrow")
    with pytest.raises(CheckpointError, match=r"mixed\.safetensors: the text encoder gives 64 .* the UNet reads 128"):
        TextToVideo(path)
