"""Frames to files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, Types, io, ui

from ..vc2.files.codecs import CODECS
from ..vc2.files.grid import side_by_side
from ..vc2.files.video import FORMATS, Sound, clip_files, write_video
from .host.flags import wants_metadata
from .host.progress import warn
from .inputs import choose
from .schema import ADVANCED, search

USUAL, USUAL_CRF = "auto", -1  # the codec that a format has where none is asked for, and the codec's own quality


def pixels(frame: torch.Tensor) -> np.ndarray:
    """uint8 `[H, W, 3]` of an image `[H, W, C]` in 0..1."""
    return (frame[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()


def sound_of(audio: dict, clip: int) -> Sound:
    """An AUDIO's track for the clip of that number; where it has fewer, its last."""
    waveform = audio["waveform"]  # [tracks, channels, samples]
    return Sound(waveform[min(clip, len(waveform) - 1)].T.float().cpu().numpy(), audio["sample_rate"])


def compression(codec: str, crf: int) -> dict:
    """The two inputs as `write_video` takes them, where None is the usual."""
    return {"codec": None if codec == USUAL else codec, "crf": None if crf == USUAL_CRF else crf}


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
                "Saves frames as a video, an animation or single pictures. Drop the file on the canvas to get its"
                " workflow back; only a gif cannot hold it."
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
                        "mp4 plays everywhere, webm in browsers; gif and animated webp are shown wherever pictures"
                        " are; png is one picture a frame."
                    ),
                ),
                io.Combo.Input(
                    "codec",
                    options=[USUAL, *CODECS],
                    default=USUAL,
                    optional=True,
                    tooltip=(
                        "For mp4 and webm. h265 and av1 make smaller files, which fewer players show. auto: h264 in"
                        " mp4, vp9 in webm."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "crf",
                    default=USUAL_CRF,
                    min=USUAL_CRF,
                    max=63,
                    optional=True,
                    tooltip=(
                        "Quality of mp4 and webm: 0 is best, more makes smaller files. -1: hard to tell from the"
                        " original."
                    ),
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "ping_pong",
                    default=False,
                    optional=True,
                    tooltip="Plays forwards, then backwards: a loop without a jump.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "plays",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    tooltip="How often a gif or webp plays. 0: for ever.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "frames_per_clip",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    tooltip=(
                        "With several clips in one batch: how many frames each has, and each becomes a file of its"
                        " own. 0: all frames in one file."
                    ),
                    **ADVANCED,
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound for mp4 and webm; it is cut, or silent, where the frames end later or sooner.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    is_output_list=True,
                    tooltip="What was saved, for nodes that take a VIDEO; with frames_per_clip one for each clip.",
                )
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, format=None, codec=None, crf=None):
        """What no file can be is told before anything is sampled, unless it comes by a link and is not known yet."""
        if format is None or codec is None or crf is None:
            return True
        try:
            choose(format, FORMATS, "format")
            choose(codec, (USUAL, *CODECS), "codec")
            FORMATS[format].compression(**compression(codec, crf))
        except (ValueError, RuntimeError) as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        images,
        fps,
        filename_prefix,
        format,
        codec=USUAL,
        crf=USUAL_CRF,
        ping_pong=False,
        plays=0,
        frames_per_clip=0,
        audio=None,
    ) -> io.NodeOutput:
        choose(format, FORMATS, "format")
        choose(codec, (USUAL, *CODECS), "codec")
        each = frames_per_clip or len(images)
        if len(images) % each:
            raise ValueError(
                f"frames_per_clip: {len(images)} frames are not whole clips of {each}; choose a divisor, or 0 for one"
                " clip"
            )
        if audio is not None and FORMATS[format].sound is None:
            warn(f"Save Video (VideoCrafter): a {format} has no sound, so the audio is left out; mp4 and webm do")
            audio = None
        height, width = images.shape[1:3]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        metadata = None
        if wants_metadata():
            metadata = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        order = [*range(each), *(range(each - 2, 0, -1) if ping_pong else ())]
        files, videos = [], []
        for number, clip in enumerate(images.split(each)):
            path = Path(folder) / f"{name}_{counter + number:05}_{FORMATS[format].suffix}"
            write_video(
                path,
                map(pixels, (clip[index] for index in order)),  # the batch is never held as uint8 as well
                fps,
                metadata,
                **compression(codec, crf),
                plays=plays,
                sound=sound_of(audio, number).lasting(len(order) / fps) if audio is not None else None,
            )
            files += clip_files(path, len(order))
            if FORMATS[format].codecs:
                videos.append(InputImpl.VideoFromFile(str(path)))  # the frames need not stay in memory for it
            else:
                frames = clip[order] if ping_pong else clip
                components = Types.VideoComponents(images=frames, frame_rate=Fraction(fps).limit_denominator(1000))
                videos.append(InputImpl.VideoFromComponents(components))
        results = [ui.SavedResult(file.name, subfolder, io.FolderType.output) for file in files]
        # The front end plays gif, webp and png as pictures, not in a video player.
        return io.NodeOutput(videos, ui=ui.PreviewVideo(results) if FORMATS[format].codecs else {"images": results})


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
