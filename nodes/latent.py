"""Where a clip starts."""

from __future__ import annotations

from comfy_api.latest import io

from .host.run import empty_latent
from .schema import ADVANCED, search


class VC2EmptyLatentVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2EmptyLatentVideo",
            display_name="Empty VideoCrafter Latent",
            category="VideoCrafter2/latent",
            **search("vc2", "text to video", "t2v", "txt2vid", "empty latent", "video size", "frames"),
            description="Latents for one or several clips; the frames are the batch.",
            inputs=[
                io.Int.Input(
                    "width",
                    default=512,
                    min=8,
                    max=4096,
                    step=8,
                    tooltip="Pixels, divisible by 8. VideoCrafter2 was trained at 512x320.",
                ),
                io.Int.Input("height", default=320, min=8, max=4096, step=8, tooltip="Pixels, divisible by 8."),
                io.Int.Input(
                    "frames", default=16, min=1, max=4096, tooltip="Frames of a clip. VideoCrafter2 was trained on 16."
                ),
                io.Int.Input(
                    "clips",
                    default=1,
                    min=1,
                    max=64,
                    tooltip=(
                        "Clips sampled together. With more than one set frames_per_clip in VC2VideoConditioning to"
                        " frames."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, frames, clips) -> io.NodeOutput:
        for name, value in (("width", width), ("height", height)):
            if value % 8:
                raise ValueError(
                    f"{name} must be divisible by 8, found {value}; the nearest is {max(8, round(value / 8) * 8)}"
                )
        return io.NodeOutput({"samples": empty_latent(clips * frames, height, width)})
