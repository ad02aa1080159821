"""File number n: which original, which container, which change. The same number is the same file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import containers, originals, pickled, states
from vc2.files import checkpoint, lora


@dataclass(frozen=True)
class Sample:
    change: str
    path: Path
    read: Callable[[Path], bool]  # whether what the file gives is what it was made of
    trace: Path  # nothing may make this


def reads_checkpoint(path: Path) -> bool:
    loaded = checkpoint.load(path)
    found = {
        prefix + name: tensor
        for prefix, part in (
            (checkpoint.UNET, loaded.unet),
            (checkpoint.VAE, loaded.vae),
            (checkpoint.TEXT, loaded.text),
        )
        for name, tensor in (part or {}).items()
    }
    expected = originals.checkpoint_state()
    scale = expected["scale_arr"][:1000]
    weights = {name: tensor for name, tensor in expected.items() if "." in name}
    return originals.equal(found, weights) and bool((loaded.schedule.scale == scale).all())


def reads_lora(path: Path) -> bool:
    return originals.equal(lora.load(path, originals.CONFIG), originals.lora_state())


def reads_turbo(path: Path) -> bool:
    found = list(lora.load(path, originals.CONFIG).values())
    expected = [t for pair in zip(*[iter(originals.turbo_list())] * 2, strict=True) for t in reversed(pair)]
    return len(found) == len(expected) and all(a.equal(b) for a, b in zip(found, expected, strict=True))


def make(number: int, folder: Path) -> Sample:
    """Write file `number` into `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rng, trace = Random(number), folder.parent / f"executed-{number}"
    group, change = GROUPS[number % len(GROUPS)]
    name, content, read = group(rng, change, str(trace))
    path = folder / name
    path.write_bytes(content)
    if change is states.adapter_config:
        (folder / "adapter_config.json").write_bytes(states.adapter_config(rng).encode("latin-1"))
    return Sample(change.__name__, path, read, trace)


Made = tuple[str, bytes, Callable[[Path], bool]]


def _stored(rng: Random, state: originals.State, stem: str) -> tuple[str, bytes]:
    kind = rng.choice(["safetensors", "sft", "ckpt", "pt", "pth"])
    if kind in ("safetensors", "sft"):
        return f"{stem}.{kind}", originals.safetensors(state)
    wrapped = rng.choice([state, {"state_dict": state, "epoch": 3}])
    return f"{stem}.{kind}", originals.saved(wrapped, zipped=rng.random() < 0.7)


def _of_state(rng: Random, change: Callable, trace: str) -> Made:
    state = originals.checkpoint_state()
    change(rng, state)
    return *_stored(rng, state, "model"), reads_checkpoint


def _of_lora(rng: Random, change: Callable, trace: str) -> Made:
    state = originals.lora_state()
    change(rng, state)
    return *_stored(rng, state, "lora"), reads_lora


def _of_adapter(rng: Random, change: Callable, trace: str) -> Made:
    return "adapter_model.safetensors", originals.safetensors(originals.lora_state(peft=True)), reads_lora


def _of_safetensors(rng: Random, change: Callable, trace: str) -> Made:
    state, name, read = rng.choice(
        [
            (originals.checkpoint_state(), "model", reads_checkpoint),
            (originals.lora_state(), "lora", reads_lora),
        ]
    )
    ending = rng.choice(["safetensors", "SAFETENSORS", "sft"])
    return f"{name}.{ending}", change(rng, originals.safetensors(state)), read


def _archive(rng: Random, zipped: bool) -> Made:
    content, name, read = rng.choice(
        [
            (originals.checkpoint_state(), "model.ckpt", reads_checkpoint),
            (originals.lora_state(), "lora.pt", reads_lora),
            (originals.turbo_list(), "unet_lora.pt", reads_turbo),
        ]
    )
    return name, originals.saved(content, zipped), read


def _of_zip(rng: Random, change: Callable, trace: str) -> Made:
    name, content, read = _archive(rng, zipped=True)
    return name, change(rng, content), read


def _of_legacy(rng: Random, change: Callable, trace: str) -> Made:
    name, content, read = _archive(rng, zipped=False)
    return name, change(rng, content), read


def _of_pickle(rng: Random, change: Callable, trace: str) -> Made:
    zipped = rng.random() < 0.7
    name, content, read = _archive(rng, zipped)
    place = pickled.in_zip if zipped else pickled.in_legacy
    return name, place(content, lambda data: change(rng, data, trace)), read


def unchanged(rng: Random, state: originals.State) -> None:
    """Of some files nothing is odd."""


GROUPS: list[tuple[Callable[[Random, Callable, str], Made], Callable]] = [
    *((_of_state, change) for change in [unchanged, *states.STATES]),
    *((_of_lora, change) for change in [unchanged, *states.PAIRS]),
    *[(_of_adapter, states.adapter_config)] * 3,
    *((_of_safetensors, change) for change in containers.SAFETENSORS),
    *((_of_zip, change) for change in containers.ZIPS),
    *((_of_legacy, change) for change in containers.LEGACY),
    *((_of_pickle, change) for change in pickled.PICKLES),
]
