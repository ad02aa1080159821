"""The noise that a clip starts from."""

from __future__ import annotations

from comfy_api.latest import io

from ..vc2.sampling.freeinit import CUTOFF
from .host.freeinit import set_free_init
from .host.run import sampling_of
from .schema import ADVANCED, search


class VC2FreeInit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        cutoff = {"default": CUTOFF, "min": 0.01, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="VC2FreeInit",
            display_name="VideoCrafter FreeInit",
            category="VideoCrafter2/sampling",
            **search("vc2", "freeinit", "temporal consistency", "steady video", "flicker"),
            description=(
                "Samples the clip several times, each time from noise that remembers the last one's rough shape, so"
                " that it moves more as the prompt says. Two passes take twice the time."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to change; the incoming one stays as it is."),
                io.Int.Input(
                    "iterations",
                    default=3,
                    min=1,
                    max=20,
                    tooltip="How often the clip is sampled: so many times the time. 1: as without the node.",
                ),
                io.Float.Input(
                    "spatial_cutoff",
                    **cutoff,
                    tooltip="How fine a detail of each picture the noise remembers. More keeps more of the last pass.",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "temporal_cutoff",
                    **cutoff,
                    tooltip="How fast a motion the noise remembers. More keeps more of the last pass.",
                    **ADVANCED,
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler that starts from an empty latent.")],
        )

    @classmethod
    def execute(cls, model, iterations, spatial_cutoff, temporal_cutoff) -> io.NodeOutput:
        sampling_of(model, "VideoCrafter FreeInit")
        model = model.clone()
        if iterations > 1:
            set_free_init(model, iterations, spatial_cutoff, temporal_cutoff)
        return io.NodeOutput(model)
