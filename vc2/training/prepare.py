"""`python -m vc2.training prepare`: encode a recipe's sources once, into WebDataset tars that training reads.

Tars are written under a temporary name and renamed, so that an interrupted run goes on with the tars that are missing;
under `accelerate launch` every process takes its share of them. Where too much could not be used, the same command
makes those tars again that lack samples.
"""

from __future__ import annotations

import io
import json
import logging
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from webdataset import TarWriter

from ..files.output import whole
from ..plural import plural
from .data.prepared import EMPTY, FLIPPED, INDEX, MOMENTS, SHARD, TABLE, TEXT, folder_of
from .data.readers import read_ahead
from .data.stream import Stream, mirrored
from .encoders import ENCODED_AT_ONCE, Encoders
from .errors import RecipeError
from .recipe import Recipe
from .sources import source
from .sources.source import BrokenSample, Sample, SourceError
from .together import listen

log = logging.getLogger(__name__)

SKIPPED = ".skipped.txt"


class ToEncode(Dataset):
    """Samples of a source in its order, as they are to be encoded; a str says why one is broken."""

    def __init__(self, stream: Stream, indices: range):
        self.stream, self.indices = stream, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample | str:
        try:
            return self.stream.read_to_store(self.indices[place])
        except BrokenSample as error:
            return str(error)


def prepare(recipe: Recipe, cache: Path) -> list[Path]:
    """Encode every source of the recipe that is marked `prepared`; returns their folders. Raises RecipeError where none
    is.
    """
    sources = [
        (medium, number)
        for medium, section in recipe.data.sources.items()
        for number in range(len(section.members))
        if section.prepared != "no"
    ]
    if not sources:
        raise RecipeError(f"{recipe.name} prepares nothing: no source has prepared: moments, or moments and text")
    # One process may have hours of tars left where another has none.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=2))])
    listen()
    encoders = Encoders(recipe, accelerator.device)
    folders = []
    for medium, number in sources:
        stream = Stream(recipe, medium, cache, number=number)
        folder = folder_of(recipe, medium, stream.section, stream.source, cache, encoders.fingerprints)
        if not (folder / INDEX).is_file():
            _prepare(stream, folder, encoders, accelerator)
        folders.append(folder)
        log.info("%s is prepared in %s", stream.name, folder)
    return folders


def _prepare(stream: Stream, folder: Path, encoders: Encoders, accelerator: Accelerator) -> None:
    """One source, this process's share of its tars."""
    total, with_text = len(stream.source), stream.section.prepared == "moments and text"
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, total, SHARD)
    todo = [start for start in starts if not _tar(folder, start).is_file()]
    if not todo and _too_many(_broken(folder), stream):  # as the last run ended: by now they may be mended
        todo = [start for start in starts if _skipped(folder, start).is_file()]
    accelerator.wait_for_everyone()  # until all have looked, before one writes
    mine = starts[accelerator.process_index :: accelerator.num_processes]
    shares = {start: range(start, min(start + SHARD, total)) for start in mine if start in todo}
    with tqdm(
        total=sum(len(indices) for indices in shares.values()),
        unit="sample",
        desc=f"preparing {stream.medium}",
        disable=not accelerator.is_main_process,
    ) as bar:
        for start, indices in shares.items():
            _write_tar(_tar(folder, start), stream, indices, encoders, with_text, bar)
    accelerator.wait_for_everyone()
    _judge_skipped(stream, folder, accelerator.is_main_process)
    if accelerator.is_main_process:
        if with_text:
            with whole(folder / EMPTY) as temporary:
                np.save(temporary, encoders.features([""])[0].numpy())
        section = stream.section.model_dump(mode="json")
        about = {"source": section, "samples": total, "networks": encoders.fingerprints}
        with whole(folder / INDEX) as temporary:
            temporary.write_text(json.dumps(about, indent=1))
    accelerator.wait_for_everyone()


def _judge_skipped(stream: Stream, folder: Path, warn: bool) -> None:
    """Raises SourceError where too much could not be used, of all tars, whoever wrote them and when: so every process
    comes to the same answer.
    """
    broken, names = _broken(folder), folder / f"*{SKIPPED}"
    if broken and warn:
        log.warning("%s could not be used, named in %s", plural(broken, "sample"), names)
    if _too_many(broken, stream):
        raise SourceError(
            f"{broken} of {len(stream.source)} samples of {stream.name} could not be used, more than data.broken_share"
            f" allows; {names} name them. Mend them, or take them out of the source, and prepare again; or raise"
            " data.broken_share"
        )


def _broken(folder: Path) -> int:
    """Samples that are left out so far."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob(f"*{SKIPPED}"))


def _too_many(broken: int, stream: Stream) -> bool:
    total = len(stream.source)
    return total >= source.ENOUGH and broken > stream.recipe.data.broken_share * total


def _tar(folder: Path, start: int) -> Path:
    return folder / f"{start // SHARD:06d}.tar"


def _skipped(folder: Path, start: int) -> Path:
    """Why samples are left out of a tar; there is none where all are in it."""
    return _tar(folder, start).with_suffix(SKIPPED)


def _write_tar(path: Path, stream: Stream, indices: range, encoders: Encoders, with_text: bool, bar: tqdm) -> None:
    """One tar, whole or not at all, and beside it why samples are left out."""
    workers = stream.recipe.data.workers
    frozen, broken = stream.medium == "clips" and not stream.section.stored_whole, []
    waiting: list[tuple[int, Sample]] = []  # for enough to be encoded at once
    temporary = path.with_suffix(".tmp")
    try:
        with (
            TarWriter(str(temporary), encoder=False) as tar,
            closing(read_ahead(ToEncode(stream, indices), workers, batch_size=None)) as samples,
        ):
            for index, sample in zip(indices, samples, strict=True):
                bar.update()
                if isinstance(sample, str):
                    broken.append(sample)
                    continue
                if waiting and waiting[0][1].frames.shape[1:] != sample.frames.shape[1:]:  # of another bucket
                    _write_samples(tar, waiting, stream, encoders, with_text, frozen)
                    waiting.clear()
                waiting.append((index, sample))
                if sum(len(sample.frames) for _, sample in waiting) >= ENCODED_AT_ONCE:
                    _write_samples(tar, waiting, stream, encoders, with_text, frozen)
                    waiting.clear()
            _write_samples(tar, waiting, stream, encoders, with_text, frozen)
        if broken:
            path.with_suffix(SKIPPED).write_text("".join(f"{why}\n" for why in broken), encoding="utf-8")
        temporary.replace(path)
        if not broken:
            path.with_suffix(SKIPPED).unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)


def _write_samples(
    tar: TarWriter, samples: list[tuple[int, Sample]], stream: Stream, encoders: Encoders, with_text: bool, frozen: bool
) -> None:
    """Samples of one size with their places in the source, encoded together."""
    if not samples:
        return
    captions, lengths = [sample.caption for _, sample in samples], [len(sample.frames) for _, sample in samples]
    frames = torch.cat([sample.frames for _, sample in samples])
    moments = encoders.moments(frames).half().split(lengths)
    flipped = encoders.moments(mirrored(frames)).half().split(lengths) if stream.recipe.data.flip else None
    features = encoders.features(captions) if with_text else None
    for k, (index, sample) in enumerate(samples):
        row = {"__key__": f"{index:09d}", MOMENTS[1:]: _npy(moments[k])}
        if flipped is not None:
            row[FLIPPED[1:]] = _npy(flipped[k])
        if features is not None:
            row[TEXT[1:]] = _npy(features[k])
        about = {"caption": sample.caption, "fps": sample.fps, "frozen": frozen}
        if stream.buckets:
            about |= {"height": sample.frames.shape[-2], "width": sample.frames.shape[-1]}
        row[TABLE[1:]] = json.dumps(about).encode()
        tar.write(row)


def _npy(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.cpu().numpy())
    return buffer.getvalue()
