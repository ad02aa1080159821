"""The official code (https://github.com/AILab-CVC/VideoCrafter), read from VIDEOCRAFTER_PATH, for benches that compare
with it. Nothing of it is kept here; where it has been changed to run, that is said.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import types
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from vc2.networks.config import AutoencoderConfig, UNetConfig
from vc2.sampling.schedule import NoiseSchedule

# Fields of ours that the official UNet does not know: T2V-Turbo's.
OURS = ("time_cond_proj_dim", "motion_cond_proj_dim")


def given() -> bool:
    """Whether VIDEOCRAFTER_PATH names the code."""
    return (Path(os.environ.get("VIDEOCRAFTER_PATH", "")) / "lvdm").is_dir()


def require() -> None:
    """Exit, with what to do, where VIDEOCRAFTER_PATH does not name the code."""
    if not given():
        sys.exit(
            "VIDEOCRAFTER_PATH must be a checkout of https://github.com/AILab-CVC/VideoCrafter, the code to compare"
            " with"
        )


@contextlib.contextmanager
def _code():
    """Within it the official modules can be imported; what they print is not ours."""
    sys.path.insert(0, os.environ["VIDEOCRAFTER_PATH"])
    sys.modules.setdefault("cv2", types.ModuleType("cv2"))  # imported over there for something else
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.path.remove(os.environ["VIDEOCRAFTER_PATH"])


def unet(config: UNetConfig, state: dict[str, Tensor] | None = None) -> nn.Module:
    """`openaimodel3d.UNetModel`, with the tensors of `state` (shared, not copied) if there is one.

    Called as ours is: x, timesteps, context=..., fps=... Without xformers it computes attention by einsum.
    """
    with _code():
        from lvdm.modules.networks.openaimodel3d import UNetModel

        fields = {name: value for name, value in asdict(config).items() if name not in OURS}
        with torch.device("meta" if state else "cpu"):
            network = UNetModel(**fields)
    if state:
        network.load_state_dict(state, strict=True, assign=True)
        network.eval().requires_grad_(False)
    return network


class Autoencoder(nn.Module):
    """`AutoencoderKL` of the official `autoencoder.py`, whose decoder and convolution are all that decoding takes; the
    class itself is a Lightning module, which is not needed to call them.
    """

    def __init__(self, config: AutoencoderConfig, state: dict[str, Tensor]):
        super().__init__()
        with _code(), torch.device("meta"):
            from lvdm.modules.networks.ae_modules import Decoder

            self.decoder = Decoder(**asdict(config))
            self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        own = {name: t for name, t in state.items() if name.startswith(("decoder.", "post_quant_conv."))}
        self.load_state_dict(own, strict=True, assign=True)
        self.eval().requires_grad_(False)

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents `[N, 4, h, w]` -> frames `[N, 3, 8h, 8w]`."""
        return self.decoder(self.post_quant_conv(z))


def sample(
    network: nn.Module, schedule: NoiseSchedule, x_T: Tensor, cond: Tensor, uncond: Tensor, steps: int, guidance: float
) -> Tensor:
    """The official DDIM with eta 0: latents `[B, 4, T, h, w]`. It computes prompt and negative prompt one by one."""
    with _code():
        from lvdm.models.samplers.ddim import DDIMSampler

        class Sampler(DDIMSampler):
            def register_buffer(self, name, attr):
                setattr(self, name, attr)  # the original moves every tensor to a GPU

        betas = schedule.betas.float().to(x_T.device)
        abar = torch.cumprod(1 - betas, 0)
        diffusion = SimpleNamespace(
            num_timesteps=len(betas),
            betas=betas,
            alphas_cumprod=abar,
            alphas_cumprod_prev=torch.cat([abar.new_ones(1), abar[:-1]]),
            device=x_T.device,
            use_scale=True,
            scale_arr=schedule.scale.float().to(x_T.device),
            apply_model=lambda x, t, c, fps, **_: network(x, t, context=c, fps=fps),
        )
        sampler = Sampler(diffusion)
        out, _ = sampler.sample(
            steps,
            len(x_T),
            tuple(x_T.shape[1:]),
            conditioning=cond,
            unconditional_conditioning=uncond,
            unconditional_guidance_scale=guidance,
            x_T=x_T,
            eta=0.0,
            verbose=False,
            fps=torch.full((len(x_T),), 28, device=x_T.device),
        )
    return out
