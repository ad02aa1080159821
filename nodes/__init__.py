"""The nodes, one module a step of the graph: load, condition, guidance, latent, noise, sample, turbo, long, video."""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension

from .condition import VC2PromptTravel, VC2VideoConditioning
from .example import offer_example
from .guidance import VC2GuidanceRescale, VC2TemporalGuidance
from .latent import VC2EmptyLatentVideo
from .load import VC2LoadCheckpoint, VC2LoadDiffusionModel, VC2LoadLoRA
from .long import VC2ContextWindows, VC2FIFOSampler
from .noise import VC2FreeInit
from .sample import VC2DDIM, VC2Sampler, VC2Schedule
from .turbo import VC2TurboSampler
from .video import VC2CompareVideos, VC2SaveVideo

# The bundled miniature appears in the loader's list beside the user's own checkpoints.
PACK = Path(__file__).parent.parent
folder_paths.add_model_folder_path("checkpoints", str(PACK / "models"))
for kind in ("diffusion_models", "loras"):  # of the paper in miniature, which a graph of ours loads
    folder_paths.add_model_folder_path(kind, str(PACK / "workflows" / "weights" / kind))
offer_example()


class VideoCrafter2(ComfyExtension):
    async def get_node_list(self):
        return [
            VC2LoadCheckpoint,
            VC2LoadDiffusionModel,
            VC2LoadLoRA,
            VC2VideoConditioning,
            VC2PromptTravel,
            VC2TemporalGuidance,
            VC2GuidanceRescale,
            VC2EmptyLatentVideo,
            VC2Sampler,
            VC2DDIM,
            VC2Schedule,
            VC2TurboSampler,
            VC2ContextWindows,
            VC2FIFOSampler,
            VC2FreeInit,
            VC2SaveVideo,
            VC2CompareVideos,
        ]
