"""ComfyUI's command line flags that change how models are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.client import Client
from scripts.comfyui import Server
from tests import standin
from tests.host import graphs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "dtype"),
    [("--force-fp16", "float16"), ("--fp8_e4m3fn-unet", "float8_e4m3fn")],
)
def test_precision_flags(tmp_path: Path, flag: str, dtype: str) -> None:
    """Weights have the precision that a user's command line asks for, not the file's, and the model samples with it."""
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    standin.write(tmp_path / "models" / "checkpoints" / "standin.safetensors", dtype=torch.float32)
    with Server(cpu=True, base=tmp_path, extra_args=[flag]) as server:
        graph = graphs.base("standin.safetensors", 4, 32) | {"sampler": graphs.vc2_sampler(steps=2)}
        assert torch.isfinite(graphs.run_for_latent(Client(server.url), graph)).all()
        assert f"model weight dtype torch.{dtype}," in server.log
