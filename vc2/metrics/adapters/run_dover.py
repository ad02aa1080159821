"""DOVER (Wu et al., 2023), by its authors' code, as the paper's Table 3 uses it: a program for `external.json`.

    {"dover": ["/opt/dover/bin/python", ".../vc2/metrics/adapters/run_dover.py", "/opt/DOVER"]}

`/opt/DOVER` is a clone of its repository with `pretrained_weights/DOVER.pth`, `/opt/dover/bin/python` a Python with
what it imports (torch, torchvision, timm, einops, decord, opencv-python, scikit-video, pyyaml). Views and their
normalisation are those of its `evaluate_one_video.py`; it draws where its fragments lie, here from the same seed for
every clip.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from protocol import About, serve

# Mean and deviation of a head's output, for technical and aesthetic quality: of DOVER's `evaluate_one_video.py`
# (`fuse_results`), and of EvalCrafter's `metrics/DOVER`. The paper does not say which its Table 3 was made with.
STANDARDS = {
    "": {"technical": (0.1107, 0.07355), "aesthetic": (-0.08285, 0.03774)},
    "evalcrafter_": {"technical": (-0.0758, 0.0129), "aesthetic": (0.1253, 0.0318)},
}
VIEWS = "val-l1080p"  # the data set of `dover.yml` whose views `evaluate_one_video.py` takes
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, as everywhere in its code


def scores(heads: Mapping[str, float]) -> dict[str, float]:
    """0 to 100, of the heads' outputs: a hundred times the sigmoid of each, standardised."""
    return {
        f"dover.{whose}{name}": 50 * (1 + math.tanh((heads[name] - mean) / deviation / 2))
        for whose, standard in STANDARDS.items()
        for name, (mean, deviation) in standard.items()
    }


class Dover:
    """Raises OSError for a file that is missing, ImportError for a library, ValueError for other weights."""

    def __init__(self, repository: Path, weights: Path, device: str):
        import torch
        import yaml

        options = yaml.safe_load((repository / "dover.yml").read_text(encoding="utf-8"))
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError) as error:
            raise ValueError(f"{weights} is no file of weights: {str(error).splitlines()[0]}") from error
        sys.path.insert(0, str(repository))
        from dover.models import evaluator

        build = evaluator.convnext_3d_tiny
        evaluator.convnext_3d_tiny = lambda pretrained: build()  # or it downloads weights, which `state` replaces
        self.network = evaluator.DOVER(**options["model"]["args"]).to(device)
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            described = repository / "dover.yml"
            raise ValueError(f"{weights} is not of the network that {described} describes: {error}") from error
        self.views: dict[str, dict[str, Any]] = options["data"][VIEWS]["args"]["sample_types"]
        self.device = device

    def __call__(self, clip: str, prompt: str) -> dict[str, float]:
        import numpy as np
        import torch
        from dover.datasets import UnifiedFrameSampler, spatial_temporal_view_decomposition

        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        samplers = {name: sampler(UnifiedFrameSampler, view) for name, view in self.views.items()}
        views, _ = spatial_temporal_view_decomposition(clip, self.views, samplers)
        mean, deviation = (torch.tensor(numbers)[:, None, None, None] for numbers in (MEAN, DEVIATION))
        for name, frames in views.items():  # [3, clips x T, H, W], becoming [clips, 3, T, H, W]
            clips = self.views[name].get("num_clips", 1)
            views[name] = ((frames - mean) / deviation).unflatten(1, (clips, -1)).transpose(0, 1).to(self.device)
        outputs = self.network(views)
        return scores({name: output.mean().item() for name, output in zip(views, outputs, strict=True)})


def sampler(kind: Any, view: Mapping[str, Any]) -> Any:
    """Which frames a view has: one clip cut into `t_frag` pieces, or `num_clips` clips."""
    if "t_frag" in view:
        return kind(view["clip_len"] // view["t_frag"], view["t_frag"], view["frame_interval"], view["num_clips"])
    return kind(view["clip_len"], view["num_clips"], view["frame_interval"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, help="clone of DOVER's repository")
    parser.add_argument("--weights", type=Path, help="default: pretrained_weights/DOVER.pth of the clone")
    parser.add_argument("--device", help="default: cuda where there is one")
    args = parser.parse_args()
    weights = args.weights or args.repository / "pretrained_weights" / "DOVER.pth"

    def start() -> tuple[About, Dover]:
        import torch

        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        dover = Dover(args.repository.absolute(), weights, device)
        options, state = (hashlib.sha256(path.read_bytes()) for path in (args.repository / "dover.yml", weights))
        about = {
            "implementation": f"DOVER, dover.yml {options.hexdigest()[:12]}",
            "weights": state.hexdigest(),
            "preprocessing": f"the views of {VIEWS}; where fragments lie is drawn from seed 0 for each clip",
        }
        return about, dover

    serve(start)


if __name__ == "__main__":
    main()
