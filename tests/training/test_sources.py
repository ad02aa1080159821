"""Every kind of source is read as it is found elsewhere, and what is not there is named."""

from __future__ import annotations

import csv
import io
import json
import zlib
from pathlib import PureWindowsPath

import numpy as np
import pytest
from PIL import Image

from tests.training.sources import laion, picture, recipe, write_tar
from vc2.files.video import write_video
from vc2.training.data.stream import Stream
from vc2.training.rng import numpy_generator
from vc2.training.sources import media, tars
from vc2.training.sources.folder import FolderListing
from vc2.training.sources.shards import ShardListing
from vc2.training.sources.source import BrokenSample, SourceError


def test_shards_are_read_as_img2dataset_writes_them(tmp_path):
    folder = laion(tmp_path / "laion", tars=3, each=4)
    write_tar(
        folder / "00003.tar",
        {
            "x": {"jpg": picture(1), "json": json.dumps({"caption": "from the table"}).encode()},
            "y": {"txt": b"no picture"},
        },
    )
    for pattern in (str(folder), f"{folder}/*.tar", f"{folder}/{{00000..00003}}.tar"):
        listing = ShardListing(pattern, "images", tmp_path / "index")
        assert len(listing) == 13
        assert listing.record(5).caption == "picture 000010001"
        assert listing.record(12).caption == "from the table"
        assert np.array_equal(
            media.read_image(listing.record(5)), np.asarray(Image.open(io.BytesIO(picture(zlib.crc32(b"000010001")))))
        )
    assert len(list((tmp_path / "index").iterdir())) == 1  # of all tars, and made once


def test_a_folder_may_have_any_name(tmp_path):
    folder = laion(tmp_path / "laion [high] *", 1, 3)
    assert len(ShardListing(str(folder), "images", tmp_path / "index")) == 3


def test_webvid_is_read_from_its_csv(tmp_path):
    videos = tmp_path / "videos"
    for i in range(3):
        write_video(videos / f"page{i}" / f"{i}.mp4", list(np.full((6, 32, 32, 3), 60 * i, np.uint8)), 6)
    with open(tmp_path / "train.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        table.writerows([[i, "https://", "PT1S", f"page{i}", f'A "{i}",\nand more'] for i in range(3)])
    data = recipe({"clips": {"kind": "webvid", "csv": str(tmp_path / "train.csv"), "videos": str(videos)}})
    stream = Stream(data, "clips", tmp_path)
    assert len(stream.source) == 3
    sample = stream.read(2, 3, (1, 1), numpy_generator(0))
    assert sample.caption == 'A "2", and more'
    assert sample.fps == 6
    assert sample.frames.shape == (3, 3, 64, 64)
    assert sample.frames.float().mean() == pytest.approx(120, abs=3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_webvid_s_csv_is_utf_8_or_named(tmp_path, encoding):
    (tmp_path / "train.csv").write_text("videoid,page_dir,name,größe\n7,page,A café,1\n", encoding=encoding)
    data = recipe({"clips": {"kind": "webvid", "csv": str(tmp_path / "train.csv"), "videos": str(tmp_path)}})
    if encoding == "utf-8-sig":
        assert Stream(data, "clips", tmp_path).source.record(0).caption == "A café"
        return
    with pytest.raises(SourceError, match=r"train\.csv .*save it as"):
        Stream(data, "clips", tmp_path)


def test_journeydb_is_read_from_its_lines(tmp_path):
    (tmp_path / "000").mkdir()
    (tmp_path / "000" / "a.png").write_bytes(picture(3))
    lines = [
        {"img_path": "./000/a.png", "prompt": "a castle", "Task2": {"Caption": "x"}},
        {"prompt": "no path"},
        {"img_path": "a.png", "prompt": None},
    ]
    (tmp_path / "anno.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    stream = Stream(
        recipe({"images": {"kind": "journeydb", "jsonl": str(tmp_path / "anno.jsonl"), "images": str(tmp_path)}}),
        "images",
        tmp_path,
    )
    assert len(stream.source) == 3
    assert stream.read(0, 1, (1, 1), numpy_generator(0)).caption == "a castle"
    with pytest.raises(BrokenSample, match=r"line 3 has None for a caption"):
        stream.read(2, 1, (1, 1), numpy_generator(0))
    with pytest.raises(BrokenSample, match=r"anno\.jsonl line 2 has no 'img_path'; expected img_path and prompt"):
        stream.read(1, 1, (1, 1), numpy_generator(0))


def test_folders_are_read_through_links_and_each_once(tmp_path):
    """As data lies on clusters. A link to a folder above would have no end."""
    (tmp_path / "data" / "near").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path / "data" / "near", tmp_path / "elsewhere"):
        (folder / "a.png").write_bytes(picture(0))
        (folder / "a.txt").write_text("a castle")
    try:
        (tmp_path / "data" / "far").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "data", target_is_directory=True)
        for name in ("again", "zz"):  # beside their target, and before and after it
            (tmp_path / "data" / name).symlink_to(tmp_path / "data" / "near", target_is_directory=True)
    except OSError as error:
        pytest.skip(f"this system makes no links: {error}")
    found = [
        path.relative_to(tmp_path / "data").as_posix() for path in FolderListing(tmp_path / "data", "images").files
    ]
    assert found == ["again/a.png", "far/a.png"]


def test_braces_in_a_pattern_of_windows(monkeypatch):
    monkeypatch.setattr(tars, "Path", PureWindowsPath)
    with pytest.raises(SourceError, match=r"3 of 3 tars are missing, the first D:/data/00000\.tar"):
        tars.shard_paths(r"D:\data\{00000..00002}.tar")


def test_a_folder_names_what_has_no_caption(tmp_path, caplog):
    for name, caption in (("a", "a castle"), ("b", None), ("c", " \n")):
        (tmp_path / f"{name}.png").write_bytes(picture(0))
        if caption is not None:
            (tmp_path / f"{name}.txt").write_text(caption)
    listing = FolderListing(tmp_path, "images")
    assert f"1 of 3 files left out, for want of a .txt with a caption beside it: {tmp_path / 'b.png'}" in caplog.text
    assert listing.record(0).caption == "a castle"
    with pytest.raises(BrokenSample, match=r"c\.png has ' \\n' for a caption"):
        listing.record(1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "folder", "path": "absent"}, "absent: no such folder"),
        ({"kind": "shards", "path": "absent/*.tar"}, "no such tars"),
        ({"kind": "shards", "path": "absent/{0..3}.tar"}, "4 of 4 tars are missing, the first absent/0.tar"),
        ({"kind": "journeydb", "jsonl": "absent.jsonl", "images": "."}, "absent.jsonl: no such file"),
    ],
)
def test_what_is_not_there_is_named(source, message, tmp_path):
    with pytest.raises(SourceError, match=message):
        Stream(recipe({"images": source}), "images", tmp_path)


def test_a_tar_cut_short_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"x": {"png": picture(0), "txt": b"x"}, "y": {"png": picture(1), "txt": b"y"}})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SourceError, match=r"a\.tar"):
        ShardListing(str(path), "images", tmp_path / "index")
