"""What the files are made of: a whole checkpoint and LoRAs for it, small, with real names."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from functools import cache

import torch
from safetensors.torch import save
from torch import Tensor

from tests.fixtures import fill_module, noise
from tests.standin import unet_config
from vc2.files import lora
from vc2.files.layout import TEXT, UNET, VAE, schedule_buffers
from vc2.networks.autoencoder import AutoencoderKL
from vc2.networks.config import AutoencoderConfig, TextConfig
from vc2.networks.text import TextEncoder
from vc2.networks.unet import VideoUNet
from vc2.sampling.schedule import NoiseSchedule

CONFIG = unet_config("vc2_tiny")
State = dict[str, Tensor]


@cache
def _checkpoint() -> State:
    parts = {
        UNET: VideoUNet(CONFIG),
        VAE: AutoencoderKL(AutoencoderConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1)),
        TEXT: TextEncoder(TextConfig(vocab_size=64, width=64, heads=4, layers=2)),
    }
    state = {p + name: t.half() for p, module in parts.items() for name, t in fill_module(module).state_dict().items()}
    return state | schedule_buffers(NoiseSchedule())


def checkpoint_state() -> State:
    return dict(_checkpoint())


def lora_layers() -> dict[str, tuple[int, ...]]:
    """Path -> weight shape of some Linears and convolutions."""
    shapes = lora.adapted_modules(CONFIG)
    return {name: shapes[name] for name in list(shapes)[::16]}


def pair(layer: str, shape: tuple[int, ...], rank: int = 4) -> tuple[Tensor, Tensor]:
    """(up, down) of a layer."""
    up = noise(f"{layer}.up", (shape[0], rank, *(1,) * (len(shape) - 2)))
    return up, noise(f"{layer}.down", (rank, *shape[1:]))


def lora_state(peft: bool = False) -> State:
    """In ComfyUI's own layout with alphas, or in PEFT's."""
    state = {}
    for layer, shape in lora_layers().items():
        prefix = f"base_model.model.{layer}" if peft else f"diffusion_model.{layer}"
        state[f"{prefix}.lora_B.weight"], state[f"{prefix}.lora_A.weight"] = pair(layer, shape)
        if not peft:
            state[f"{prefix}.alpha"] = torch.tensor(2.0)
    return state


def turbo_list() -> list[Tensor]:
    """As T2V-Turbo's `unet_lora.pt`."""
    return [t for layer, shape in lora.adapted_modules(CONFIG).items() for t in pair(layer, shape)]


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def safetensors(state: State, metadata: dict[str, str] | None = None) -> bytes:
    return save({name: t.contiguous() for name, t in state.items()}, metadata)


def split_header(data: bytes) -> tuple[dict, bytes]:
    """A safetensors file's header, decoded, and its numbers."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: dict | bytes, numbers: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, entry in content.items():
            archive.writestr(name, entry)
    return buffer.getvalue()


def pickle_name(content: dict[str, bytes]) -> str:
    return next(name for name in content if name.endswith("/data.pkl"))


def opcodes(data: bytes) -> list[bytes]:
    """A pickle, cut between its opcodes."""
    starts = [position for _, _, position in pickletools.genops(data)]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def legacy_ends(data: bytes) -> list[int]:
    """Where each of the five pickles ends in the older format; before them 0, after them the numbers."""
    ends, stream = [0], io.BytesIO(data)
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    return ends


def equal(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]) for name in expected
    )
