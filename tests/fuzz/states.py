"""Odd names, shapes and numbers, for any container: each function changes a state dict by the generator's choice."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import torch
from torch import Tensor

from .originals import State


def _any(rng: Random, state: State, where: Callable[[str, Tensor], bool] = lambda *_: True) -> str:
    return rng.choice(sorted(name for name, t in state.items() if t.ndim and where(name, t)))


def _renamed(rng: Random, state: State, change: Callable[[str], str]) -> None:
    name = _any(rng, state)
    state[change(name)] = state.pop(name)


def a_name_is_cut(rng: Random, state: State) -> None:
    _renamed(rng, state, lambda name: name[: rng.randrange(len(name))] or "x")


def a_letter_is_changed(rng: Random, state: State) -> None:
    at = rng.randrange(1000)
    _renamed(rng, state, lambda name: name[: at % len(name)] + rng.choice("~ .\0é") + name[at % len(name) + 1 :])


def an_index_is_absurd(rng: Random, state: State) -> None:
    """What a loader that trusts the largest index would build, or count to, for ever."""
    index = rng.choice(["200000", "3000000", "9" * 5000, "007", "-1", "1e9"])
    name = _any(rng, state, lambda name, _: bool(re.search(r"\.\d+\.", name)))
    groups = list(re.finditer(r"(?<=\.)\d+(?=\.)", name))
    group = rng.choice(groups)
    state[name[: group.start()] + index + name[group.end() :]] = state[name].clone()


def a_block_is_gone(rng: Random, state: State) -> None:
    name = _any(rng, state, lambda name, _: bool(re.search(r"\.\d+\.", name)))
    block = name[: re.search(r"\.\d+\.", name).end()]
    for other in [other for other in state if other.startswith(block)]:
        del state[other]


def there_are_thousands_of_blocks(rng: Random, state: State) -> None:
    pattern = rng.choice(
        [
            "model.diffusion_model.input_blocks.{}.0.in_layers.2.weight",
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.{}.norm1.weight",
            "first_stage_model.encoder.down.{}.block.0.conv1.weight",
            "first_stage_model.encoder.down.0.block.{}.conv1.weight",
            "cond_stage_model.model.transformer.resblocks.{}.ln_1.weight",
        ]
    )
    for index in range(5000):
        state.setdefault(pattern.format(index), torch.ones(32, 1, 1, 1))


def there_are_tens_of_thousands_of_tensors(rng: Random, state: State) -> None:
    state |= {f"{rng.choice(['', 'model.diffusion_model.'])}x{n}": torch.ones(1) for n in range(30_000)}


def a_name_is_no_text(rng: Random, state: State) -> None:
    _renamed(rng, state, lambda name: f"{name}\n\x1b[2J\u202e\r{'x' * rng.choice([1, 100_000])}")


def a_container_is_named(rng: Random, state: State) -> None:
    """A module without weights of its own."""
    _renamed(rng, state, lambda name: re.sub(r"^(.*?\.\d+)\..*?(\.[^.]*){1,2}$", r"\1\2", name))


def a_tensor_is_missing(rng: Random, state: State) -> None:
    del state[_any(rng, state, lambda name, _: "." in name)]


def a_tensor_is_too_many(rng: Random, state: State) -> None:
    state[_any(rng, state) + rng.choice([".weight", "x", ".0.weight"])] = torch.ones(4)


def a_shape_is_odd(rng: Random, state: State) -> None:
    name = _any(rng, state)
    tensor = state[name]
    state[name] = rng.choice(
        [
            tensor.reshape(-1)[:0],
            tensor.new_zeros(10**6, 0),
            tensor.reshape(-1)[0],
            tensor.reshape(*(1,) * 5, *tensor.shape),
            tensor.reshape(1, -1),
            torch.cat([tensor, tensor]),
        ]
    )


def the_first_convolution_is_odd(rng: Random, state: State) -> None:
    """The tensors that widths are told from."""
    name = _any(rng, state, lambda name, _: name.endswith(("input_blocks.0.0.weight", "conv_in.weight", "to_k.weight")))
    shape = rng.choice([(32,), (0, 4, 3, 3), (1, 1, 1, 1), (32, 4), (), (2**18, 1, 1, 1), (33, 4, 3, 3)])
    state[name] = torch.ones(shape, dtype=torch.float16)


def numbers_are_integers(rng: Random, state: State) -> None:
    name = _any(rng, state, lambda name, _: "." in name)
    state[name] = torch.ones(state[name].shape, dtype=rng.choice([torch.int64, torch.int8, torch.bool, torch.uint8]))


def all_numbers_are_integers(rng: Random, state: State) -> None:
    for name in state:
        state[name] = state[name].to(torch.int64)


def numbers_are_complex(rng: Random, state: State) -> None:
    name = _any(rng, state, lambda name, _: "." in name)
    state[name] = state[name].to(torch.complex64)


def a_number_is_not_finite(rng: Random, state: State) -> None:
    name = _any(rng, state, lambda name, _: "." in name)
    tensor = state[name].clone()
    tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice([torch.nan, torch.inf, -torch.inf])
    if tensor.isnan().any():
        tensor = tensor.to(rng.choice([torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float32]))
    state[name] = tensor


def the_schedule_is_broken(rng: Random, state: State) -> None:
    scale = torch.linspace(1, 0.7, 1400)
    broken = [scale * torch.nan, scale * 0, -scale, scale[:999], scale[None], scale[0], scale.int()]
    state["scale_arr"] = rng.choice(broken)


def it_is_another_model(rng: Random, state: State) -> None:
    names = ["blocks.0.self_attn.q.weight", "double_blocks.0.img_attn.qkv.weight", "conditioner.embedders.0.x", "a.b"]
    for n, name in enumerate([name for name in state if name.startswith("model.")]):
        state[f"{rng.choice(names)}.{n}"] = state.pop(name)


STATES = [
    a_name_is_cut, a_letter_is_changed, an_index_is_absurd, a_block_is_gone, there_are_thousands_of_blocks,
    there_are_tens_of_thousands_of_tensors, a_name_is_no_text, a_container_is_named, a_tensor_is_missing,
    a_tensor_is_too_many, a_shape_is_odd, the_first_convolution_is_odd, numbers_are_integers, all_numbers_are_integers,
    numbers_are_complex, a_number_is_not_finite, the_schedule_is_broken, it_is_another_model, an_index_is_absurd,
]  # fmt: skip


def _half(rng: Random, state: State, ending: str) -> str:
    return _any(rng, state, lambda name, _: name.endswith(ending))


def a_rank_is_zero(rng: Random, state: State) -> None:
    down = _half(rng, state, "lora_A.weight")
    up = down.replace("lora_A", "lora_B")
    state[down], state[up] = state[down][:0], state[up][:, :0]


def a_half_is_a_number(rng: Random, state: State) -> None:
    state[_half(rng, state, rng.choice(["lora_A.weight", "lora_B.weight"]))] = torch.tensor(1.0)


def a_half_is_missing(rng: Random, state: State) -> None:
    del state[_half(rng, state, rng.choice(["lora_A.weight", "lora_B.weight"]))]


def a_layer_is_there_twice(rng: Random, state: State) -> None:
    name = _half(rng, state, "lora_A.weight")
    state[name.replace("lora_A", "lora_down")] = state[name] + 1


def an_alpha_is_odd(rng: Random, state: State) -> None:
    name = _half(rng, state, "lora_A.weight").replace("lora_A.weight", "alpha")
    odd = [torch.full((4,), 2.0), torch.tensor(torch.nan), torch.tensor(torch.inf), torch.zeros(0), torch.tensor(2j)]
    state[name] = rng.choice(odd)


def a_change_is_odd(rng: Random, state: State) -> None:
    """`.diff` and `.diff_b` of shapes that no layer has, or of layers without a bias."""
    name = _half(rng, state, "lora_A.weight").replace("lora_A.weight", rng.choice(["diff", "diff_b"]))
    state[name] = rng.choice([torch.tensor(1.0), torch.ones(3), torch.ones(1, 1, 1)])


PAIRS = [
    a_rank_is_zero, a_half_is_a_number, a_half_is_missing, a_layer_is_there_twice, an_alpha_is_odd, a_change_is_odd,
    a_name_is_cut, a_container_is_named, a_name_is_no_text, numbers_are_integers, a_number_is_not_finite,
    a_shape_is_odd, there_are_tens_of_thousands_of_tensors,
]  # fmt: skip


def adapter_config(rng: Random) -> str:
    """An adapter_config.json that is damaged, or of an adapter that is no plain LoRA."""
    return rng.choice(
        [
            "{", "[]", "[" * 100_000, '{"lora_alpha": NaN}', '{"lora_alpha": "much"}', '{"lora_alpha": 1e999}',
            '{"alpha_pattern": [1]}', '{"alpha_pattern": {"(a+)+$": 3}}', '{"alpha_pattern": {"to_q": "x", "to_k": 1}}',
            '{"use_dora": true}', '{"peft_type": "LOHA"}', '{"fan_in_fan_out": true}', "\xff\xfe",
        ]
    )  # fmt: skip
