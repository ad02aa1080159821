"""What the speed bench computes, each twice where the official code is given: with ours and with it, on the same
weights and inputs.
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from bench import official
from bench.cases import Case
from bench.machine import in_turns
from vc2.networks.autoencoder import SCALE_FACTOR, AutoencoderKL
from vc2.networks.compiled import compile_layers
from vc2.networks.config import UNetConfig
from vc2.networks.linear import DTYPES as BY_ONEDNN
from vc2.networks.linear import linear
from vc2.networks.unet import VideoUNet
from vc2.pipeline import Guided, to_pixels
from vc2.sampling import ddim
from vc2.sampling.schedule import NoiseSchedule

N = TypeVar("N", bound=nn.Module)
Works = dict[str, Callable[[], Tensor]]
# "fifth": everything of VideoCrafter2 but its width, which a CPU computes in seconds.
WIDTHS = {
    "full": UNetConfig.vc2(),
    "fifth": UNetConfig(model_channels=64, num_head_channels=16, context_dim=64),
}
# What torch's counter leaves out: `_scaled_dot_product_flash_attention_for_cpu`, forward and backward, and oneDNN's
# product.
ON_A_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}
if BY_ONEDNN:
    ON_A_CPU[torch.ops.mkldnn._linear_pointwise] = lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GUIDANCE, FPS = 12.0, 28


@dataclass
class Row:
    """Of a case: seconds of each round by who computed, how far the results are apart (relative RMS), how far either is
    from ours in float32 where a case is narrower, and on a GPU the most memory that tensors took (bytes, ours; beyond
    the weights).

    "products" computed as many floating-point operations as ours, and nothing but plain products of matrices.
    """

    case: Case
    seconds: dict[str, list[float]]
    difference: float | None = None
    from_fp32: dict[str, float] | None = None
    peak: int | None = None

    def as_json(self) -> dict[str, Any]:
        rounded = {name: [round(s, 5) for s in times] for name, times in self.seconds.items()}
        return asdict(self) | {"seconds": rounded}


def random_weights(module: N, device: torch.device, seed: int = 0) -> N:
    """A module built on the meta device, with numbers of the size that trained ones have; ready to sample."""
    module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim < 2:
                p.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                p.uniform_(-1, 1, generator=generator).mul_(p[0].numel() ** -0.5)
    return module.eval().requires_grad_(False)


class Networks:
    """Those of one width in float32, and what is made of them; the official ones share the weights."""

    def __init__(self, network: str, device: torch.device, with_official: bool):
        self.device, self.schedule, self.compare = device, NoiseSchedule(), with_official
        self.network, self.config = network, WIDTHS[network]
        self.unet = random_weights(VideoUNet(self.config, device="meta"), device)
        self.unet.use_attention("auto")
        self.vae = random_weights(AutoencoderKL(device="meta"), device, seed=1)

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def of(self, case: Case) -> tuple[VideoUNet, AutoencoderKL]:
        """Ours, as the case wants them; copies where they differ from those in float32."""
        dtype = DTYPES[case.precision]
        if dtype == torch.float32 and not case.compiled:
            return self.unet, self.vae
        unet = VideoUNet(self.config, device="meta").eval().requires_grad_(False)
        unet.load_state_dict({name: t.to(dtype) for name, t in self.unet.state_dict().items()}, assign=True)
        unet.use_attention("auto")
        if case.compiled:
            compile_layers(unet)
        vae = AutoencoderKL(device="meta").eval().requires_grad_(False)
        vae.load_state_dict({name: t.to(dtype) for name, t in self.vae.state_dict().items()}, assign=True)
        return unet, vae


def works(case: Case, networks: Networks) -> Works:
    """What the case computes, by whose code. Weights in half precision are ours; the official code computes them by
    autocast, as its script does.
    """
    return {
        "UNet forward": _forward,
        "guided step": _guided_step,
        "prompt to frames": _clip,
        "decode": _decode,
        "training step": _training_step,
    }[case.workload](case, networks)


def _autocast(case: Case, device: torch.device, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        dtype = DTYPES[case.precision]
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return work()

    return run


def _conditions(case: Case, networks: Networks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x `[1, 4, T, h, w]`, prompt and negative prompt `[1, 77, D]`, fps `[1]`."""
    d = networks.config.context_dim
    fps = torch.full((1,), FPS, device=networks.device)
    return networks.draw(*case.latents), networks.draw(1, 77, d, seed=1), networks.draw(1, 77, d, seed=2), fps


def forward(unet: VideoUNet, case: Case, networks: Networks) -> Callable[[], Tensor]:
    """A pass of one of ours, with the case's inputs."""
    dtype = DTYPES[case.precision]
    x, text, _, fps = _conditions(case, networks)
    t = torch.full((1,), 500, device=networks.device)
    return torch.no_grad()(lambda: unet(x.to(dtype), t, text.to(dtype), fps))


def _forward(case: Case, networks: Networks) -> Works:
    out: Works = {"ours": forward(networks.of(case)[0], case, networks)}
    if networks.compare:
        x, text, _, fps = _conditions(case, networks)
        t = torch.full((1,), 500, device=networks.device)
        theirs = official.unet(networks.config, networks.unet.state_dict())
        out["official"] = _autocast(case, networks.device, lambda: theirs(x, t, context=text, fps=fps))
    return out


def _guided_step(case: Case, networks: Networks) -> Works:
    """Epsilon with prompt and without, combined: ours in one batch, the official code one after the other."""
    (unet, _), dtype = networks.of(case), DTYPES[case.precision]
    x, text, empty, fps = _conditions(case, networks)
    t = torch.full((1,), 500, device=networks.device)
    guided = Guided(unet, text.to(dtype), empty.to(dtype), fps, GUIDANCE)
    out: Works = {"ours": torch.no_grad()(lambda: guided(x, t))}
    if networks.compare:
        theirs = official.unet(networks.config, networks.unet.state_dict())

        def both() -> Tensor:
            cond, uncond = (theirs(x, t, context=c, fps=fps) for c in (text, empty))
            return uncond + GUIDANCE * (cond - uncond)

        out["official"] = _autocast(case, networks.device, both)
    return out


def _clip(case: Case, networks: Networks) -> Works:
    """DDIM without added noise, then decoded. The text encoder, open_clip's in both, is left out."""
    (unet, vae), dtype = networks.of(case), DTYPES[case.precision]
    x, text, empty, fps = _conditions(case, networks)
    guided = Guided(unet, text.to(dtype), empty.to(dtype), fps, GUIDANCE)

    @torch.no_grad()
    def ours() -> Tensor:
        z = ddim.sample(guided, x, networks.schedule, case.steps, 0.0)
        return torch.from_numpy(to_pixels(vae, z[0])).float()

    out: Works = {"ours": ours}
    if networks.compare:
        theirs = official.unet(networks.config, networks.unet.state_dict())
        decoder = official.Autoencoder(networks.vae.config, networks.vae.state_dict())

        def all_of_it() -> Tensor:
            z = official.sample(theirs, networks.schedule, x, text, empty, case.steps, GUIDANCE)
            frames = torch.stack([decoder.decode(frame[None] / SCALE_FACTOR)[0] for frame in z[0].unbind(1)])
            return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).cpu()

        out["official"] = _autocast(case, networks.device, all_of_it)
    return out


def _decode(case: Case, networks: Networks) -> Works:
    _, vae = networks.of(case)
    z = networks.draw(*case.latents) * SCALE_FACTOR
    out: Works = {"ours": torch.no_grad()(lambda: torch.from_numpy(to_pixels(vae, z[0])).float())}
    if networks.compare:
        decoder = official.Autoencoder(networks.vae.config, networks.vae.state_dict())

        def each() -> Tensor:
            frames = torch.stack([decoder.decode(frame[None] / SCALE_FACTOR)[0] for frame in z[0].unbind(1)])
            return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).cpu()

        out["official"] = _autocast(case, networks.device, each)
    return out


def _training_step(case: Case, networks: Networks) -> Works:
    """Forward, backward and AdamW by the same plain loop: the networks alone differ. docs/training.md has the trainer.

    The results compared are the losses of the first steps.
    """
    ours = VideoUNet(networks.config, device="meta")
    if case.compiled:
        compile_layers(ours)
    out: Works = {"ours": training_step(ours, case, networks)}
    if networks.compare:
        out["official"] = training_step(official.unet(networks.config), case, networks)
    return out


def training_step(network: nn.Module, case: Case, networks: Networks) -> Callable[[], Tensor]:
    """Of a network with weights of its own, which are as the others' when it begins."""
    x, text, _, fps = _conditions(case, networks)
    t, target = torch.full((1,), 500, device=networks.device), networks.draw(*case.latents, seed=3)
    state = {name: tensor.clone() for name, tensor in networks.unet.state_dict().items()}
    network.load_state_dict(state, assign=True)
    network.to(networks.device).requires_grad_(True)
    network.eval()  # the temporal convolutions' dropout would make two losses incomparable
    optimizer, dtype = torch.optim.AdamW(network.parameters(), 1e-5), DTYPES[case.precision]

    def step() -> Tensor:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            loss = torch.nn.functional.mse_loss(network(x, t, context=text, fps=fps).float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def products(flops: int, dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """As many operations as products of square matrices, by the fastest that torch has."""
    side = 8192 if device.type == "cuda" else 1024
    while flops < 16 * side**3:  # fewer than eight of them would round off too much
        side //= 2
    a = torch.randn(side, side, device=device).to(dtype)

    def run() -> Tensor:
        with torch.no_grad():
            for _ in range(max(1, round(flops / (2 * side**3)))):
                out = linear(a, a)
        return out

    return run


def apart(a: Tensor, b: Tensor) -> float:
    """RMS of the difference as a share of b's RMS."""
    return float((a.double() - b.double()).pow(2).mean().sqrt() / b.double().pow(2).mean().sqrt())


def measure(case: Case, networks: Networks, rounds: int) -> Row:
    """The first of each is not timed: it warms up, and its results are compared."""
    device, exact = networks.device, None
    if networks.compare and case.precision != "fp32":
        ours_alone = copy.copy(networks)
        ours_alone.compare = False
        exact = works(replace(case, precision="fp32", compiled=False), ours_alone)["ours"]()
    todo = works(case, networks)
    results, peak = {}, None
    for name, work in todo.items():
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        results[name] = work()
        if device.type == "cuda" and name == "ours":
            work()  # compiling is over
            torch.cuda.reset_peak_memory_stats(device)
            work()
            peak = torch.cuda.max_memory_allocated(device) - before
    difference = apart(results["ours"], results["official"]) if "official" in results else None
    from_fp32 = {name: apart(result, exact) for name, result in results.items()} if exact is not None else None
    del results
    if not case.compiled:  # a compiled network hides its operations from the count
        with FlopCounterMode(display=False, custom_mapping=ON_A_CPU) as counted:
            todo["ours"]()
        todo["products"] = products(counted.get_total_flops(), DTYPES[case.precision], device)
    row = Row(case, in_turns(todo, device, rounds, warm_up=0), difference, from_fp32, peak)
    todo.clear()
    gc.collect()
    return row
