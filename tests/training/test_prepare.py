"""`prepare`: latents are the autoencoder's own and written once, and what is broken is left out and named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.sources import broken_folder, picture
from tests.training.test_distributed import together
from vc2.files.video import write_video
from vc2.training import prepare as preparing
from vc2.training.data.prepared import Prepared
from vc2.training.data.stream import Stream
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.rng import SAMPLE, numpy_generator
from vc2.training.sources import source
from vc2.training.sources.source import SourceError
from vc2.training.sources.world import World


def test_prepared_moments_are_the_autoencoder_s_own(recipe, folder, cache):
    trainer = Trainer(recipe(), folder)
    stream = trainer.objective.streams["clips"]
    assert isinstance(stream.source, Prepared)
    world = World("clean", "clips", 40)
    for index in (0, 7, 39):
        pixels, caption = world.sample(index)
        stored = stream.source.sample(index)
        assert stored.caption == caption
        assert not stored.frozen
        assert stored.frames.dtype == torch.float16
        assert torch.allclose(stored.frames.float(), trainer.objective.encoders.moments(pixels), atol=2e-2)
        assert torch.allclose(stored.text.float(), trainer.objective.encoders.text([caption])[0], atol=1e-2)
    assert torch.allclose(stream.source.empty_text.float(), trainer.objective.encoders.text([""])[0], atol=1e-2)


def test_an_interrupted_preparation_goes_on(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "SHARD", 8)
    settings, whole, parted = recipe(data={"clips": None}), tmp_path / "whole", tmp_path / "parted"
    [expected] = prepare(settings, whole)
    real, encoded = preparing.Encoders.moments, []

    def interrupted(encoders, pixels):
        encoded.extend(pixels)
        if len(encoded) > 3 * 8:  # in the middle of the fourth
            assert list(parted.rglob("*.tmp"))
            raise KeyboardInterrupt
        return real(encoders, pixels)

    monkeypatch.setattr(preparing.Encoders, "moments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, parted)
    assert not list(parted.rglob("*.tmp"))
    written = sorted(parted.rglob("*.tar"))
    with pytest.raises(SourceError, match="of which 3 tars are there"):
        Trainer(settings, tmp_path / "run", parted)
    monkeypatch.setattr(preparing.Encoders, "moments", real)
    before = {path: path.stat().st_mtime_ns for path in written}
    [found] = prepare(settings, parted)
    assert {path: path.stat().st_mtime_ns for path in written} == before  # not again
    assert found.name == expected.name
    a, b = Prepared(expected, whole / "index"), Prepared(found, parted / "index")
    assert len(a) == len(b) == 40
    assert all(torch.equal(a.sample(i).frames, b.sample(i).frames) for i in range(40))


def test_clips_are_prepared_at_the_stride_that_the_network_is_told(recipe, tmp_path):
    """Real files: the stride is drawn once, when they are encoded, and is never taken twice."""
    for k in range(12):
        write_video(
            tmp_path / "clips" / f"{k}.mp4", np.random.default_rng(k).integers(0, 255, (24, 48, 64, 3), np.uint8), 24
        )
        (tmp_path / "clips" / f"{k}.txt").write_text(f"clip {k}")
    data = {
        "clips": {"kind": "folder", "path": str(tmp_path / "clips")},
        "images": None,
        "lengths": [[4, 2, 4]],
        "held_out": 0,
    }
    straight = recipe(data=data)
    settings = recipe(data={**data, "clips": {**data["clips"], "prepared": "moments and text"}})
    [folder] = prepare(settings, tmp_path / "cache")
    trainer = Trainer(settings, tmp_path / "runs" / "small", tmp_path / "cache")
    stream, strides = trainer.objective.streams["clips"], set()
    for index in range(12):
        sample = stream.read(index, 4, (2, 4), numpy_generator(1, index))
        assert sample.frames.shape == (4, 8, 8, 8)
        strides.add(24 / sample.fps)
        assert stream.source.sample(index).frozen
        drawn = numpy_generator(settings.seed, SAMPLE, 0, index)  # as it was when the clip was encoded
        pixels = Stream(straight, "clips", tmp_path / "cache").read(index, 4, (2, 4), drawn)
        assert pixels.fps == sample.fps
        assert torch.allclose(trainer.objective.encoders.moments(pixels.frames), sample.frames.float(), atol=2e-2)
    assert strides == {2, 3, 4}
    assert folder.name.startswith("folder-clips-")
    assert trainer.run()


def test_what_is_prepared_has_the_recipe_s_size(recipe, tmp_path):
    settings = recipe(
        data={
            "clips": None,
            "images": {"kind": "procedural", "count": 12, "prepared": "moments"},
            "width": 128,
            "height": 96,
        }
    )
    [folder] = prepare(settings, tmp_path / "cache")
    assert Prepared(folder, tmp_path / "cache" / "index").sample(0).frames.shape == (1, 8, 12, 16)


def test_preparing_leaves_broken_files_out_and_names_them(recipe, tmp_path, monkeypatch):
    images = {"kind": "folder", "path": str(broken_folder(tmp_path, 12, 4)), "prepared": "moments"}
    settings = recipe(data={"clips": None, "images": images, "broken_share": 0.5, "held_out": 0})
    [folder] = prepare(settings, tmp_path / "cache")
    assert len(Prepared(folder, tmp_path / "cache" / "index")) == 12
    assert len((folder / "000000.skipped.txt").read_text().splitlines()) == 4
    Trainer(settings, tmp_path / "runs" / "small", tmp_path / "cache").run()
    monkeypatch.setattr(source, "ENOUGH", 16)
    for _ in range(2):  # the same command again does not make it right
        with pytest.raises(
            SourceError,
            match=(
                r"4 of 16 samples of data\.images could not be used, more than data\.broken_share allows;"
                r" .*\*\.skipped\.txt"
            ),
        ):
            prepare(recipe(data={"clips": None, "images": images, "broken_share": 0.1}), tmp_path / "other")


def test_files_of_a_list_that_were_mended_are_encoded(recipe, tmp_path, monkeypatch):
    """By the command that the refusal asks for. Of those of a list the cache's name says nothing."""
    monkeypatch.setattr(preparing, "SHARD", 4)
    monkeypatch.setattr(source, "ENOUGH", 16)
    photos = broken_folder(tmp_path, 10, 6)  # in the last two tars of four
    rows = "".join(f"{n:03d}.png,photo {n}\n" for n in range(16))
    (photos / "list.csv").write_text(f"path,caption\n{rows}")
    images = {"kind": "manifest", "path": str(photos / "list.csv"), "prepared": "moments"}
    settings = recipe(data={"clips": None, "images": images, "broken_share": 0.1, "held_out": 0})
    with pytest.raises(SourceError, match=r"6 of 16 samples .* Mend them, or take them out of the source, and prepare"):
        prepare(settings, tmp_path / "cache")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    for n in range(10, 15):
        (photos / f"{n:03d}.png").write_bytes(picture(n))
    [folder] = prepare(settings, tmp_path / "cache")
    assert len(Prepared(folder, tmp_path / "cache" / "index")) == 15
    assert [path.name for path in folder.glob("*.skipped.txt")] == ["000003.skipped.txt"]
    again = [path.name for path in folder.glob("*.tar") if path.stat().st_mtime_ns != before[path.name]]
    assert sorted(again) == ["000002.tar", "000003.tar"]


def test_the_share_of_broken_files_is_of_all_of_them_whoever_read_them(recipe, tmp_path, monkeypatch):
    """Begun by one process, ended by two: the second would find its own half of the files twice as bad."""
    monkeypatch.setattr(preparing, "SHARD", 4)
    monkeypatch.setattr(source, "ENOUGH", 8)
    images = {
        "kind": "folder",
        "path": str(broken_folder(tmp_path, 12, 4)),
        "prepared": "moments",
    }  # the broken ones are in the last tar
    settings = recipe(data={"clips": None, "images": images, "broken_share": 0.3, "held_out": 0})
    real = preparing._write_tar
    monkeypatch.setattr(
        preparing,
        "_write_tar",
        lambda path, *rest: real(path, *rest) if path.name < "000002" else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, tmp_path / "cache")
    monkeypatch.setattr(preparing, "_write_tar", real)
    together(2, lambda rank: prepare(settings, tmp_path / "cache"))
    [folder] = prepare(settings, tmp_path / "cache")
    assert len(Prepared(folder, tmp_path / "cache" / "index")) == 12


def test_nothing_to_prepare_says_so(recipe, tmp_path):
    with pytest.raises(RecipeError, match="prepares nothing"):
        prepare(recipe(data={"clips": None, "images": {"kind": "procedural"}}), tmp_path)
