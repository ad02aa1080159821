"""Where a clip starts."""

from __future__ import annotations

from comfy_api.latest import io

from .host.progress import warn
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
            description="Width, height and number of frames of the clip to make.",
            inputs=[
                io.Int.Input(
                    "width",
                    default=512,
                    min=8,
                    max=4096,
                    step=8,
                    tooltip="Pixels, a multiple of 8. VideoCrafter2 looks best at 512x320, the miniature at 64x64.",
                ),
                io.Int.Input("height", default=320, min=8, max=4096, step=8, tooltip="Pixels, a multiple of 8."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip=(
                        "Frames in a clip. The models are made for 16; for more put VideoCrafter Context Windows"
                        " before the sampler."
                    ),
                ),
                io.Int.Input(
                    "clips",
                    default=1,
                    min=1,
                    max=64,
                    tooltip=(
                        "Clips made together in one run. With more than one, set frames_per_clip to the number of"
                        " frames in VideoCrafter Video Conditioning."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[io.Latent.Output(tooltip="For a sampler.")],
        )

    @classmethod
    def execute(cls, width, height, frames, clips) -> io.NodeOutput:
        for name, value in (("width", width), ("height", height)):
            if value % 8:
                raise ValueError(
                    f"{name} must be divisible by 8, found {value}; the nearest is {max(8, round(value / 8) * 8)}"
                )
        if clips > 1:
            warn(
                f"{clips} clips of {frames} frames: with frames_per_clip {frames} in VideoCrafter Video Conditioning"
                " they do not influence one another, and in Save Video (VideoCrafter) each becomes a file of its own;"
                f" without it they are one clip of {clips * frames}"
            )
        return io.NodeOutput({"samples": empty_latent(clips * frames, height, width)})
