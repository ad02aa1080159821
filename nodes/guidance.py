"""Guidance beyond the classifier-free one: a MODEL in, a patched clone out."""

from __future__ import annotations

from comfy_api.latest import io

from .host.guidance import add_guidance_rescale, add_temporal_guidance
from .host.run import sampling_of
from .schema import search


class VC2TemporalGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2TemporalGuidance",
            display_name="VideoCrafter Temporal Guidance",
            category="VideoCrafter2/guidance",
            **search("vc2", "flicker", "temporal consistency", "steady video"),
            description=(
                "Guides away from what the model would show without temporal attention, so that frames agree more."
                " Costs one more pass a step."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to patch; the incoming one is not changed."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How far away. 0: none, and no extra pass. 1 to 3 steadies; more stiffens motion.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, model, scale) -> io.NodeOutput:
        sampling_of(model, "VC2TemporalGuidance")
        model = model.clone()
        if scale:
            add_temporal_guidance(model, scale)
        return io.NodeOutput(model)


class VC2GuidanceRescale(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2GuidanceRescale",
            display_name="VideoCrafter Guidance Rescale",
            category="VideoCrafter2/guidance",
            **search("vc2", "rescale cfg", "burnt colours", "contrast"),
            description=(
                "Takes back the contrast that a high guidance scale adds, by one factor a clip. Stock RescaleCFG does"
                " not know this model's scaling."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to patch; the incoming one is not changed."),
                io.Float.Input(
                    "multiplier",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the added contrast to take back. 0: nothing.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, model, multiplier) -> io.NodeOutput:
        sampling_of(model, "VC2GuidanceRescale")
        model = model.clone()
        if multiplier:
            add_guidance_rescale(model, multiplier)
        return io.NodeOutput(model)
