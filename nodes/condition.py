"""What the model is told besides the text."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..vc2.sampling.travel import blend, common_length, keyframes
from .host.model import DEFAULT_FPS, with_video_conditions
from .inputs import choose
from .schema import ADVANCED, search


class VC2VideoConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2VideoConditioning",
            display_name="VideoCrafter Video Conditioning",
            category="VideoCrafter2/conditioning",
            **search("vc2", "motion", "frame rate", "fps"),
            description=(
                "Sets how much moves from frame to frame, and how long each clip is where several are made at once."
            ),
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="The prompt, from CLIP Text Encode or VideoCrafter Prompt Travel."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="What to keep out, from CLIP Text Encode; its text may be empty."
                ),
                io.Float.Input(
                    "fps",
                    display_name="motion fps",
                    default=DEFAULT_FPS,
                    min=1,
                    max=120,
                    step=1,
                    tooltip=(
                        "Motion, not playback: lower moves more from frame to frame, higher less. VideoCrafter2 is"
                        " used with 28; the miniature knows 8 and 16. Playback speed is set where the video is saved."
                    ),
                ),
                io.Int.Input(
                    "frames_per_clip",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip=(
                        "With several clips in one batch: how many frames each has, so that they do not influence one"
                        " another. 0: all frames are one clip."
                    ),
                    **ADVANCED,
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="For a sampler's positive."),
                io.Conditioning.Output(display_name="negative", tooltip="For a sampler's negative."),
            ],
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
            **search("vc2", "prompt schedule", "prompt scheduling", "prompt keyframes", "batch prompt schedule"),
            description=(
                "A prompt that changes in the course of a clip: each line names a frame and what to show from there."
                " For long clips above all."
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="From Load VideoCrafter Checkpoint."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=True,
                    default="0: a blue circle moving right\n15: a red circle moving right",
                    tooltip=(
                        "One prompt a line, as `frame: prompt`; frames count from 0. The first line's prompt holds"
                        " before its frame too, the last line's after it."
                    ),
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="How many frames the clip has, as in Empty VideoCrafter Latent.",
                ),
                io.Combo.Input(
                    "between",
                    options=["blend", "hold"],
                    default="blend",
                    tooltip=(
                        "blend: changes gradually from line to line. hold: each prompt stays until the next one's"
                        " frame."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="Instead of CLIP Text Encode's: for VideoCrafter Video Conditioning.")
            ],
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
