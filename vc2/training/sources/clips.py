"""Clips from video files, through the libraries of FFmpeg (PyAV): in the reader's own process and with one thread,
since there are as many readers as a machine has cores for.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import IO

import av
import numpy as np
import torch
from av.container import InputContainer
from av.filter import Graph
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from ...files.video import READABLE
from .fitting import fit
from .images import MAX_PIXELS, check_size
from .record import Record, blamed
from .source import BrokenSample, View

# As far before the frame that is wanted as one may be shown later than it was decoded.
REORDERING = Fraction(3, 23)
TRANSPOSE = ("transpose", "cclock_flip")  # rows become columns
NEARLY_SQUARE = 0.02  # WebVid's pixels are 448:447, so that 596 columns are 16:9 of 336 rows


def read_clip(record: Record, view: View) -> tuple[Tensor, float]:
    """Frames uint8 `[T, 3, height, width]` of a video, and their rate: source fps / stride. Raises BrokenSample."""
    with blamed(record.name, "is not a video that can be read"):
        try:
            return _read_clip(record, view)
        except av.error.MemoryError as error:  # unlike others, not the machine's: a damaged size asks for terabytes
            raise BrokenSample(f"is not a video that can be read: {error}") from error


def _read_clip(record: Record, view: View) -> tuple[Tensor, float]:
    with opened(record) as video:
        frames, (stride, first) = view.frames or video.total, view.choose(video.total)
        clip = _fitted(video, first, stride, frames, view)
    # Containers count what they like: the sound may be longer than the picture. Then the clip is the last there is.
    if 0 < len(clip) < frames and first >= (missing := (frames - len(clip)) * stride):
        with opened(record) as video:
            clip = _fitted(video, first - missing, stride, frames, view)
    if len(clip) < frames:
        raise BrokenSample(f"ended after {len(clip)} of {frames} frames at a stride of {stride}")
    return torch.stack(clip), video.fps / stride


def _fitted(video: Video, first: int, stride: int, frames: int, view: View) -> list[Tensor]:
    decoded = video.decode(first, stride, frames)
    return [fit(frame, view.width, view.height, view.place, video.aspect) for frame in decoded]


@dataclass
class Video:
    """An open file. `fps` and `total`, the number of frames, are its container's word; `aspect` is how much wider than
    high a pixel is.
    """

    container: InputContainer
    stream: VideoStream
    tick: Fraction  # seconds, of its timestamps
    fps: float
    total: int
    aspect: float

    def decode(self, first: int, stride: int, count: int) -> Iterator[np.ndarray]:
        """Every `stride`-th frame from the `first` on, `count` at the most, uint8 `[H, W, 3]`, upright. Once."""
        return islice(self._decode(first, stride), count)

    def _decode(self, first: int, stride: int) -> Iterator[np.ndarray]:
        # A quarter of a frame early, so that rounding cannot skip the frame; at constant rate, since files of varying
        # rate have no n-th frame.
        start = max(0.0, (first - 0.25) / self.fps) + (self.container.start_time or 0) / av.time_base
        if first:
            with contextlib.suppress(av.FFmpegError):  # what cannot be wound forward is read from its beginning
                self.container.seek(round((start - REORDERING) * av.time_base))
        shift = round(start / self.tick)
        graph: Graph | None = None
        for frame in self.container.decode(self.stream):
            if frame.pts is None or frame.pts < shift:
                continue
            frame.pts -= shift
            graph = graph or self._graph(frame, stride)
            yield from _through(graph, frame)
        if graph:
            yield from _through(graph, None)

    def _graph(self, frame: VideoFrame, stride: int) -> Graph:
        """What the ffmpeg program would do to frames like this one."""
        turns = _upright(frame)
        if TRANSPOSE in turns:
            self.aspect = 1 / self.aspect
        filters = [
            *turns,
            ("fps", f"{self.fps:.6f}"),
            ("select", f"not(mod(n\\,{stride}))"),
            ("scale", "flags=bicubic:threads=1"),
            ("format", "rgb24"),
            ("buffersink", None),
        ]
        graph = Graph()
        buffer = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self.tick)
        graph.link_nodes(buffer, *(graph.add(name, arguments) for name, arguments in filters)).configure()
        return graph


@contextmanager
def opened(record: Record) -> Iterator[Video]:
    """Raises BrokenSample, or what PyAV does for a file that is no video."""
    with record.open() as file, _container(file) as container:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise BrokenSample("has no moving pictures")
        stream = max(streams, key=lambda stream: stream.width * stream.height)
        check_size(stream.width, stream.height)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        # To a hundredth, as the ffmpeg program prints them: which frames a step draws hangs on these numbers.
        fps = round(float(stream.average_rate or stream.guessed_rate or 0), 2)
        if not 0 < fps < 1000:
            raise BrokenSample(f"has {fps} frames a second")
        if container.duration is None:
            duration = _measured(record, stream.index)
        else:
            duration = round(container.duration / av.time_base, 2)
        aspect = float(stream.sample_aspect_ratio or 1)
        aspect = aspect if abs(aspect - 1) > NEARLY_SQUARE else 1.0
        yield Video(container, stream, _tick(stream), fps, round(duration * fps), aspect)


def _container(file: IO[bytes]) -> InputContainer:
    return av.open(file, "r", options={"format_whitelist": READABLE})


def _tick(stream: Stream) -> Fraction:
    if not stream.time_base:
        raise BrokenSample("has no clock")
    return stream.time_base


def _measured(record: Record, index: int) -> float:
    """Seconds, of a container that does not state them: live recordings and pipes leave such files."""
    with record.open() as file, _container(file) as container:
        stream = container.streams[index]
        times = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        if not times:
            raise BrokenSample("has no frames")
        first, last = min(times)[0], max(times)
        return float((last[0] + last[1] - first) * _tick(stream))


def _upright(frame: VideoFrame) -> list[tuple[str, str | None]]:
    """Filters that turn and mirror a frame as its file says it is to be shown."""
    try:
        matrix = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
    except KeyError:
        return []
    # x' = a x + c y, y' = b x + d y, of which only right angles are looked at.
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    filters: list[tuple[str, str | None]] = []
    if abs(b) > abs(a):
        filters.append(TRANSPOSE)
        a, d = c, b
    if a < 0:
        filters.append(("hflip", None))
    if d < 0:
        filters.append(("vflip", None))
    return filters


def _through(graph: Graph, frame: VideoFrame | None) -> Iterator[np.ndarray]:
    """What comes out when a frame goes in, or no more."""
    graph.vpush(frame)
    with contextlib.suppress(BlockingIOError, EOFError):
        while True:
            yield graph.vpull().to_ndarray()
