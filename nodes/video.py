"""Frames to files."""

from __future__ import annotations

import glob
from fractions import Fraction
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, Types, io, ui

from ..vc2.files.grid import side_by_side
from ..vc2.files.video import FORMATS, write_video
from .host.flags import wants_metadata
from .inputs import choose
from .schema import search


def pixels(frame: torch.Tensor) -> np.ndarray:
    """uint8 `[H, W, 3]` of an image `[H, W, C]` in 0..1."""
    return (frame[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()


class VC2SaveVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2SaveVideo",
            display_name="Save Video (VideoCrafter)",
            category="VideoCrafter2/video",
            **search(
                "vc2",
                "mp4",
                "webm",
                "gif",
                "webp",
                "png sequence",
                "export video",
                "video combine",
                essentials="Video Tools",
            ),
            description=(
                "Saves frames as a video, an animation or single pictures. Drop an mp4 or webm on the canvas to get"
                " its workflow back."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The frames, from VAE Decode."),
                io.Float.Input(
                    "fps",
                    display_name="playback fps",
                    default=10.0,
                    min=0.1,
                    max=240.0,
                    step=0.1,
                    tooltip=(
                        "Playback: frames shown a second. 10 suits VideoCrafter2. Motion is set in VideoCrafter Video"
                        " Conditioning."
                    ),
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/vc2",
                    tooltip="Folder and start of the file name, below the output folder.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="mp4",
                    tooltip=(
                        "mp4 plays everywhere; webm in browsers; gif and animated webp anywhere that shows pictures;"
                        " png is one picture a frame."
                    ),
                ),
            ],
            outputs=[io.Video.Output(tooltip="The same frames as a VIDEO, for nodes that take one.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, fps, filename_prefix, format) -> io.NodeOutput:
        choose(format, FORMATS, "format")
        height, width = images.shape[1:3]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        metadata = None
        if wants_metadata():
            metadata = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        # One frame at a time: the batch is never held as uint8 as well.
        path = write_video(
            Path(folder) / f"{name}_{counter:05}_{FORMATS[format].suffix}", map(pixels, images), fps, metadata
        )
        video = InputImpl.VideoFromComponents(
            Types.VideoComponents(images=images, frame_rate=Fraction(fps).limit_denominator(1000))
        )
        if format in ("mp4", "webm"):
            return io.NodeOutput(
                video, ui=ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
            )
        # The front end plays these as pictures, not in a video player.
        written = sorted(path.parent.glob(glob.escape(path.stem[:-5]) + "?????.png")) if format == "png" else [path]
        return io.NodeOutput(
            video, ui={"images": [ui.SavedResult(file.name, subfolder, io.FolderType.output) for file in written]}
        )


class VC2CompareVideos(io.ComfyNode):
    CLIPS = 9

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2CompareVideos",
            display_name="Compare Videos",
            category="VideoCrafter2/video",
            **search("vc2", "video grid", "side by side", "xy plot", essentials="Video Tools"),
            description=(
                "Up to nine clips side by side in one, each with a label: to compare seeds, prompts or settings."
            ),
            inputs=[
                io.Image.Input("clip_1", tooltip="The first clip; the others are scaled to its size."),
                *(
                    io.Image.Input(
                        f"clip_{i}", optional=True, tooltip="Another clip. A shorter one holds its last frame."
                    )
                    for i in range(2, cls.CLIPS + 1)
                ),
                io.String.Input(
                    "labels",
                    multiline=True,
                    default="",
                    tooltip="One a line, in the order of the clips. Empty: no labels.",
                ),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=cls.CLIPS,
                    tooltip="Clips in a row. 0: as near to a square as can be.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The grid's frames, for Save Video (VideoCrafter).")],
        )

    @classmethod
    def execute(cls, clip_1, labels, columns, **more) -> io.NodeOutput:
        clips = [clip_1, *(more[name] for name in sorted(more) if more[name] is not None)]
        grid = side_by_side([_Frames(clip) for clip in clips], labels.rstrip().splitlines(), columns)
        return io.NodeOutput(torch.stack([torch.from_numpy(frame) for frame in grid]).float() / 255)


class _Frames:
    """A batch of images as a sequence of uint8 frames, converted one at a time."""

    def __init__(self, images: torch.Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return pixels(self.images[index])
