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
                "Less flicker: frames agree more with one another. Each step runs the model once more, and so takes"
                " about half as long again."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to change; the incoming one stays as it is."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="0: off, at no cost. 1 to 3: steadier. More: motion stiffens.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, model, scale) -> io.NodeOutput:
        sampling_of(model, "VideoCrafter Temporal Guidance")
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
                "Softens the harsh contrast and burnt colours of a high guidance, without flicker. Use it instead of"
                " RescaleCFG, which computes with another model's noise levels."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to change; the incoming one stays as it is."),
                io.Float.Input(
                    "multiplier",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the added contrast is taken out. 0: none; 0.7: a good start; 1: all.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, model, multiplier) -> io.NodeOutput:
        sampling_of(model, "VideoCrafter Guidance Rescale")
        model = model.clone()
        if multiplier:
            add_guidance_rescale(model, multiplier)
        return io.NodeOutput(model)
