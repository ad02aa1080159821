"""Is the action recognised that the prompt names?"""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
import torch

from .frames import best_device
from .metric import Clip, ClipMetric, Measure, NotApplicableError

FRAMES = 16


class Action(ClipMetric):
    """MViT v2 S (Li et al., 2022), trained on the 400 actions of Kinetics."""

    name = "action"
    measures = (Measure("action", "probability of the Kinetics action that the prompt names", "higher"),)
    table = "Table 1 (EvalCrafter: action recognition)"
    library = ("torchvision",)
    modules = ("torchvision",)
    licence = "BSD-3-Clause"
    file = "mvit_v2_s-ae3be167.pth"
    preprocessing = "16 frames, first to last (repeated where there are fewer); torchvision's own transform"
    warning = "prompts that name none of Kinetics' actions word by word have no such number"

    @cached_property
    def actions(self) -> list[str]:
        """In the order of the network's outputs."""
        from torchvision.models.video import MViT_V2_S_Weights

        return MViT_V2_S_Weights.KINETICS400_V1.meta["categories"]

    @cached_property
    def network(self) -> torch.nn.Module:
        from torchvision.models.video import mvit_v2_s

        network = mvit_v2_s(weights=None)
        network.load_state_dict(torch.load(self.needed_file, map_location="cpu", weights_only=True))
        return network.eval().to(best_device())

    def named(self, prompt: str) -> str | None:
        """The longest action whose name is in the prompt."""
        prompt = prompt.lower()
        found = [name for name in self.actions if re.search(rf"\b{re.escape(name.lower())}\b", prompt)]
        return max(found, key=len) if found else None

    @torch.no_grad()
    def measure(self, clip: Clip) -> dict[str, float]:
        from torchvision.models.video import MViT_V2_S_Weights

        action = self.named(clip.prompt)
        if action is None:
            raise NotApplicableError("the prompt names none of Kinetics' actions")
        index = np.linspace(0, len(clip.frames) - 1, FRAMES).round().astype(int)
        frames = torch.from_numpy(np.ascontiguousarray(clip.frames[index])).permute(0, 3, 1, 2)
        video = MViT_V2_S_Weights.KINETICS400_V1.transforms()(frames)[None].to(next(self.network.parameters()).device)
        return {"action": float(self.network(video).softmax(-1)[0, self.actions.index(action)])}
