"""What the model is told besides the text."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import io

from .host import DEFAULT_FPS


class VC2VideoConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2VideoConditioning",
            display_name="VideoCrafter Video Conditioning",
            category="VideoCrafter2/conditioning",
            description="Adds the frame rate that the model imagines, and the length of a clip where a batch holds several.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The encoded prompt."),
                io.Conditioning.Input("negative", tooltip="The encoded negative prompt; the official sampler encodes an empty one."),
                io.Float.Input(
                    "fps",
                    default=DEFAULT_FPS,
                    min=1,
                    max=120,
                    step=1,
                    tooltip="The frame rate as a condition, not the playback rate: higher means less motion from frame to frame. "
                    "The official script uses 28. The miniature knows 8 and 16.",
                ),
                io.Int.Input(
                    "frames_per_clip",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Frames in each clip where the latent batch holds more than one. 0: the whole batch is one clip.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, positive, negative, fps, frames_per_clip) -> io.NodeOutput:
        values = {"fps": fps, "frames_per_clip": frames_per_clip}
        return io.NodeOutput(*(node_helpers.conditioning_set_values(c, values) for c in (positive, negative)))
