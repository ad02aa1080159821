"""Frames to files."""

from __future__ import annotations

import glob
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui

from ..vc2.video_io import FORMATS, write_video
from .load import choose


class VC2SaveVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2SaveVideo",
            display_name="Save Video (VideoCrafter)",
            category="VideoCrafter2/video",
            description="Writes frames to the output folder. An mp4 or webm carries the workflow: drop it on the canvas to get the graph back.",
            inputs=[
                io.Image.Input("images", tooltip="The frames, from VAE Decode."),
                io.Float.Input(
                    "fps",
                    default=10.0,
                    min=0.1,
                    max=240.0,
                    step=0.1,
                    tooltip="Playback rate. The official script saves at 10; the fps condition is another thing.",
                ),
                io.String.Input("filename_prefix", default="video/vc2", tooltip="Folder and start of the file name, below the output folder."),
                io.Combo.Input("format", options=list(FORMATS), default="mp4", tooltip="mp4 (H.264), webm (VP9), gif, animated webp, or one png a frame."),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, fps, filename_prefix, format) -> io.NodeOutput:
        choose(format, FORMATS, "format")
        height, width = images.shape[1:3]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory(), width, height)
        metadata = None
        if not args.disable_metadata:
            metadata = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        # One frame at a time: the batch is never held as uint8 as well.
        frames = ((frame[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy() for frame in images)
        path = write_video(Path(folder) / f"{name}_{counter:05}_{FORMATS[format].suffix}", frames, fps, metadata)
        if format in ("mp4", "webm"):
            return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)]))
        # The front end plays these as pictures, not in a video player.
        written = sorted(path.parent.glob(glob.escape(path.stem[:-5]) + "?????.png")) if format == "png" else [path]
        return io.NodeOutput(ui={"images": [ui.SavedResult(file.name, subfolder, io.FolderType.output) for file in written]})
