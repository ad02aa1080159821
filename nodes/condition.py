"""What the model is told besides the text."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..vc2.sampling.travel import blend, common_length, keyframes
from .host.model import DEFAULT_FPS, with_video_conditions
from .inputs import choose


class VC2VideoConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2VideoConditioning",
            display_name="VideoCrafter Video Conditioning",
            category="VideoCrafter2/conditioning",
            description=(
                "Adds the frame rate that the model imagines, and the length of a clip where a batch holds several."
            ),
            inputs=[
                io.Conditioning.Input("positive", tooltip="The encoded prompt."),
                io.Conditioning.Input(
                    "negative", tooltip="The encoded negative prompt; the official sampler encodes an empty one."
                ),
                io.Float.Input(
                    "fps",
                    default=DEFAULT_FPS,
                    min=1,
                    max=120,
                    step=1,
                    tooltip=(
                        "The frame rate as a condition, not the playback rate: higher means less motion from frame to"
                        " frame. The official script uses 28. The miniature knows 8 and 16."
                    ),
                ),
                io.Int.Input(
                    "frames_per_clip",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip=(
                        "Frames in each clip where the latent batch holds more than one. 0: the whole batch is one"
                        " clip."
                    ),
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, positive, negative, fps, frames_per_clip) -> io.NodeOutput:
        return io.NodeOutput(*(with_video_conditions(c, fps, frames_per_clip) for c in (positive, negative)))


class VC2PromptTravel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2PromptTravel",
            display_name="VideoCrafter Prompt Travel",
            category="VideoCrafter2/conditioning",
            description="A prompt that changes over the clip: every frame gets its own. Works with context windows.",
            inputs=[
                io.Clip.Input("clip", tooltip="From VC2LoadCheckpoint."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=True,
                    default="0: a blue circle moving right\n15: a red circle moving right",
                    tooltip=(
                        "One a line, as `frame: prompt`, counted from 0. The first keyframe's also holds before it, the"
                        " last one's after it."
                    ),
                ),
                io.Int.Input(
                    "frames", default=16, min=1, max=4096, tooltip="Frames of the clip: as in VC2EmptyLatentVideo."
                ),
                io.Combo.Input(
                    "between",
                    options=["blend", "hold"],
                    default="blend",
                    tooltip="blend: from keyframe to keyframe. hold: until the next keyframe.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="For VC2VideoConditioning.")],
        )

    @classmethod
    def execute(cls, clip, prompts, frames, between) -> io.NodeOutput:
        choose(between, ("blend", "hold"), "between")
        keys = keyframes(prompts, frames)
        encoded = [clip.encode_from_tokens(clip.tokenize(text), return_pooled=True) for _, text in keys]
        tokens = common_length([text.shape[1] for text, _ in encoded])  # long prompts come as several lots of 77
        contexts = torch.cat([text.repeat(1, tokens // text.shape[1], 1) for text, _ in encoded])
        values = blend(contexts, [frame for frame, _ in keys], frames, hold=between == "hold")
        return io.NodeOutput([[values, {"pooled_output": encoded[0][1]}]])
