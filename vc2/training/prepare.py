"""`python -m vc2.training prepare`: encode a recipe's sources once, into WebDataset tars that training reads.

Tars are written under a temporary name and renamed, so that an interrupted run goes on with the tars that are missing;
under `accelerate launch` every process takes its share of them.
"""

from __future__ import annotations

import io
import json
import logging
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from webdataset import TarWriter

from .config import Recipe, RecipeError
from .data import sources
from .data.batches import MEDIA, SAMPLE, Sample, Stream, quiet, random
from .data.cache import EMPTY, INDEX, MOMENTS, SHARD, TABLE, TEXT, cache_folder
from .data.procedural import SOURCE_FPS, World
from .data.sources import BrokenSample, SourceError
from .diffusion import DiffusionObjective

log = logging.getLogger(__name__)


SKIPPED = ".skipped.txt"


class Encoder(DiffusionObjective):
    """Of the objective only what encodes: no UNet."""

    def __init__(self, recipe: Recipe, cache: Path, device: torch.device):
        self.open_networks(recipe, device)
        self.place_networks()


class Whole(Dataset):
    """Every sample of a source once, in its order; a str says why one is broken."""

    def __init__(self, stream: Stream, indices: range):
        self.stream, self.indices = stream, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample | str:
        stream, index = self.stream, self.indices[place]
        if isinstance(stream.listing, World):
            frames, caption = stream.listing.sample(index)
            return Sample(stream.fit(frames), caption, SOURCE_FPS)
        length, low, high = max(stream.lengths)
        try:
            return stream.read(
                index, length, (low, high), random(stream.recipe.seed, SAMPLE, MEDIA.index(stream.medium), index)
            )
        except BrokenSample as error:
            return str(error)


def prepare(recipe: Recipe, cache: Path) -> list[Path]:
    """Encode every source of the recipe that is marked `prepared`; returns their folders. Raises RecipeError where none
    is.
    """
    media = [
        medium for medium in MEDIA if getattr(recipe.data, medium) and getattr(recipe.data, medium).prepared != "no"
    ]
    if not media:
        raise RecipeError(f"{recipe.name} prepares nothing: no source has prepared: moments, or moments and text")
    # One process may have hours of tars left where another has none.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=2))])
    encoder = Encoder(recipe, cache, accelerator.device)
    folders = []
    for medium in media:
        stream = Stream(recipe, medium, cache)
        folder = cache_folder(recipe, medium, stream.listing.identity(), cache, encoder.networks)
        if not (folder / INDEX).is_file():
            _prepare(recipe, stream, folder, encoder, accelerator)
        folders.append(folder)
        log.info("data.%s is prepared in %s", medium, folder)
    return folders


def _prepare(recipe: Recipe, stream: Stream, folder: Path, encoder: Encoder, accelerator: Accelerator) -> None:
    source, total = getattr(recipe.data, stream.medium), len(stream.listing)
    with_text = source.prepared == "moments and text"
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, total, SHARD)
    mine = list(starts)[accelerator.process_index :: accelerator.num_processes]
    todo = {start: range(start, min(start + SHARD, total)) for start in mine if not _tar(folder, start).is_file()}
    count = sum(len(indices) for indices in todo.values())
    with tqdm(
        total=count, unit="sample", desc=f"preparing {stream.medium}", disable=not accelerator.is_main_process
    ) as bar:
        for start, indices in todo.items():
            _write_tar(_tar(folder, start), stream, indices, encoder, with_text, bar)
    accelerator.wait_for_everyone()
    # Of all tars, whoever wrote them and when: every process comes to the same answer.
    broken, names = (
        sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob(f"*{SKIPPED}")),
        folder / f"*{SKIPPED}",
    )
    if broken and accelerator.is_main_process:
        log.warning("%d samples could not be used; %s name them", broken, names)
    if total >= sources.ENOUGH and broken > recipe.data.broken_share * total:
        raise SourceError(
            f"{broken} of {total} samples of data.{stream.medium} could not be used, more than data.broken_share"
            f" allows; {names} name them. Mend or remove them and prepare again, or raise data.broken_share"
        )
    if accelerator.is_main_process:
        if with_text:
            with open(folder / f".{EMPTY}", "wb") as file:
                np.save(file, encoder.features([""])[0].numpy())
            (folder / f".{EMPTY}").replace(folder / EMPTY)
        about = {"source": source.model_dump(mode="json"), "samples": total, "networks": encoder.networks}
        (folder / f".{INDEX}").write_text(json.dumps(about, indent=1))
        (folder / f".{INDEX}").replace(folder / INDEX)
    accelerator.wait_for_everyone()


def _tar(folder: Path, start: int) -> Path:
    return folder / f"{start // SHARD:06d}.tar"


def _write_tar(path: Path, stream: Stream, indices: range, encoder: Encoder, with_text: bool, bar: tqdm) -> None:
    """One tar, whole or not at all, and beside it why samples are left out."""
    workers = stream.recipe.data.workers
    loader = DataLoader(Whole(stream, indices), batch_size=None, num_workers=workers, worker_init_fn=quiet)
    frozen, broken = not isinstance(stream.listing, World) and stream.medium == "clips", []
    temporary = path.with_suffix(".tmp")
    try:
        with TarWriter(str(temporary), encoder=False) as tar:
            for index, sample in zip(indices, loader, strict=True):
                bar.update()
                if isinstance(sample, str):
                    broken.append(sample)
                    continue
                row = {"__key__": f"{index:09d}", MOMENTS[1:]: _npy(encoder.moments(sample.frames).half())}
                if with_text:
                    row[TEXT[1:]] = _npy(encoder.features([sample.caption])[0])
                row[TABLE[1:]] = json.dumps({"caption": sample.caption, "fps": sample.fps, "frozen": frozen}).encode()
                tar.write(row)
        if broken:
            path.with_suffix(SKIPPED).write_text("".join(f"{why}\n" for why in broken), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _npy(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.cpu().numpy())
    return buffer.getvalue()
