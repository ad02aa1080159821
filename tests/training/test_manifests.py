"""Lists of files: every format says the same, what is odd in one is read right or named, and samples are selected."""

from __future__ import annotations

import csv
import io
import re
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training.pictures import images, photos, write_manifest
from vc2.files.video import write_video
from vc2.training.data.stream import Stream
from vc2.training.rng import numpy_generator
from vc2.training.sources.lines import Lines, _records
from vc2.training.sources.source import BrokenSample, SourceError


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_manifests_of_every_format_say_the_same(tmp_path, ending, caplog):
    for name in "abcdef":
        Image.new("RGB", (64, 48), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
    source = {"kind": "manifest", "path": str(write_manifest(tmp_path / f"list.{ending}"))}
    stream = Stream(images(source), "images", tmp_path / "cache")
    assert len(stream.source) == 6
    sample = stream.read(0, 1, (1, 1), numpy_generator(0))
    assert sample.caption == 'a "quoted" cat, with a line'
    assert sample.frames[0, 0].float().mean() == pytest.approx(ord("a"), abs=1)
    with pytest.raises(BrokenSample, match="row 4 has '' for a caption"):
        stream.read(3, 1, (1, 1), numpy_generator(0))
    caplog.set_level("INFO")
    select = {"min_side": 45, "max_watermark": 0.5, "min_aesthetic": 5}
    chosen = Stream(images({**source, "select": select}), "images", tmp_path / "cache").source
    assert [chosen.table.row(int(n))["path"] for n in chosen.rows] == ["a.png", "d.png", "e.png"]
    assert chosen.record(2).caption == "e"
    assert "3 of 6 samples are selected (1 do not meet min_side 45, 1 do not meet max_watermark 0.5" in caplog.text


def test_a_manifest_elsewhere_with_other_columns_of_clips(tmp_path):
    write_video(tmp_path / "videos" / "x.mp4", list(np.full((6, 32, 32, 3), 90, np.uint8)), 6)
    (tmp_path / "list.csv").write_text("title,file\nmoving,x.mp4\n")
    source = {"kind": "manifest", "path": str(tmp_path / "list.csv"), "root": str(tmp_path / "videos")}
    recipe = images(None, clips={**source, "file": "file", "caption": "title"})
    sample = Stream(recipe, "clips", tmp_path / "cache").read(0, 3, (1, 1), numpy_generator(0))
    assert (sample.caption, sample.fps, sample.frames.shape) == ("moving", 6, (3, 3, 64, 64))


@pytest.mark.parametrize("kind", ["manifest", "webvid"])
def test_a_mark_within_a_field_swallows_no_row(tmp_path, kind):
    """As CSV's readers have it: a mark opens a field where that begins, and nowhere else."""
    captions = ['a 5" pipe', 'two, 5" and 6", of one', 'said "so"', "plain", '"all of it"', 'a\nb, "c"', '5"'] * 4
    rows = [f'{n},"p",{text}' if "," not in text else f'{n},p,"{text.replace(chr(34), 2 * chr(34))}"'
            for n, text in enumerate(captions)]  # fmt: skip
    (tmp_path / "list.csv").write_text("videoid,page_dir,name\n" + "\n".join(rows))
    sources = {
        "manifest": {"path": str(tmp_path / "list.csv"), "file": "videoid", "caption": "name"},
        "webvid": {"csv": str(tmp_path / "list.csv"), "videos": str(tmp_path)},
    }
    source = Stream(images(None, clips={"kind": kind, **sources[kind]}), "clips", tmp_path / "cache").source
    expected = [text.strip('"') if text[0] == '"' else " ".join(text.split()) for text in captions]
    assert [source.record(n).caption for n in range(len(source))] == expected


@given(st.text('",\na', max_size=40), st.sampled_from(["", "\ufeff"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_those_that_a_csv_reader_reads(tmp_path, text, mark):
    path = tmp_path / "list.csv"
    path.write_text(mark + text, encoding="utf-8", newline="")
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    records = [path.read_bytes()[start:end].decode("utf-8-sig") for start, end in _records(path, True, sha256())]
    assert [next(csv.reader(io.StringIO(record, newline=""))) for record in records] == rows


def test_a_row_that_swallows_many_lines_is_told(tmp_path, caplog):
    rows = ["path,caption", "a.png,a", 'b.png,"b', *(f"{n}.png,c" for n in range(60)), 'd.png,d"', "e.png,e"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert len(Lines(tmp_path / "list.csv", tmp_path / "index", quoted=True)) == 4
    assert "list.csv: 1 row of 50 lines or more, beginning in line 3; is a field's" in caplog.text
    caplog.clear()
    (tmp_path / "list.csv").write_text("\n".join(rows[:3] + rows[20:]))
    assert len(Lines(tmp_path / "list.csv", tmp_path / "index", quoted=True)) == 4
    assert not caplog.records
    (tmp_path / "list.csv").write_text("\n".join(rows[:-2]))  # and one that is never closed
    assert len(Lines(tmp_path / "list.csv", tmp_path / "index", quoted=True)) == 3
    assert "beginning in line 3;" in caplog.text


def test_a_list_that_is_read_otherwise_than_it_was_is_another(tmp_path):
    """Where marks were counted, the second of these had two rows; what was prepared of those is not what it has now."""
    plain, within = 'x,y\n1,"a, ""b"""\n2,c\n3,d\n', 'x,y\n1,a 5" pipe\n2,c\n3,6" more\n'
    for text in (plain, within):
        (tmp_path / "list.csv").write_text(text)
        content = Lines(tmp_path / "list.csv", tmp_path / "index", quoted=True).content
        assert (content == sha256(text.encode()).hexdigest()[:16]) == (text is plain)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "path,text\na.png,a\n", "has no column caption; .* found path, text"),
        ("list.tsv", "path\tcaption\n", r"a manifest is a \.csv, a \.jsonl or a \.parquet"),
        ("list.csv", "path,caption\n", "lists nothing"),
        ("list.csv", "", "lists nothing"),
        ("list.csv", "path,caption\na.png,a\n".encode("utf-16"), r"list\.csv is text in UTF-16, .*; save it as UTF-8"),
        ("list.csv", "path,caption\na.png,a\n".encode("utf-16-le"), r"list\.csv begins with zero bytes, perhaps UTF"),
        ("list.csv", "pfad,überschrift\na.png,a\n".encode("latin-1"), r"list\.csv begins with no CSV header in UTF-8"),
        ("list.jsonl", '{"path": "a.png"}'.encode("utf-16"), r"list\.jsonl is text in UTF-16"),
        ("list.jsonl", "[1]\n", "row 1 is a list, expected a JSON object"),
        ("list.jsonl", "{\n", "is not JSON"),
        ("absent.csv", None, "absent.csv: no such file"),
    ],
)
def test_a_manifest_that_is_none_says_why(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SourceError, match=message):
        Stream(images({"kind": "manifest", "path": str(tmp_path / name)}), "images", tmp_path / "cache")


def test_a_row_that_is_broken_is_a_sample_that_is(tmp_path):
    (tmp_path / "list.jsonl").write_text('{"path": "a.png", "caption": "a"}\n{"path": 3}\nnot json\n[]\n')
    source = Stream(images({"kind": "manifest", "path": str(tmp_path / "list.jsonl")}), "images", tmp_path / "c").source
    for index, message in ((1, "row 2 has 3 for a path"), (2, "row 3 is not JSON"), (3, "row 4 is a list")):
        with pytest.raises(BrokenSample, match=message):
            source.record(index)


ODD = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep within": '{"width": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a width of 401 digits": '{"path": "a.png", "caption": "a", "width": 1' + "0" * 400 + ', "height": 64}',
    "a score that no float holds": '{"path": "a.png", "caption": "a", "aesthetic": 1e39, "pwatermark": -1e309}',
}
GOOD = '{"path": "b.png", "caption": "b", "width": 64, "height": 64}'


@pytest.mark.parametrize("place", ["first", "later"])
@pytest.mark.parametrize("select", [None, {"min_side": 8}])
@pytest.mark.parametrize("row", [*ODD, "a field of 200,000 characters"])
def test_no_row_ends_a_run(tmp_path, row, select, place):
    """Whatever is in it, also where all rows are gone through for what they say."""
    if row in ODD:
        path, rows = tmp_path / "list.jsonl", [ODD[row], GOOD] if place == "first" else [GOOD, ODD[row]]
    else:
        rows = ["path,caption,width,height", "b.png,b,64,64"]
        rows.insert(1 if place == "first" else 2, f"a.png,{'a' * 200_000},64,64")
        path = tmp_path / "list.csv"
    path.write_text("\n".join(rows))
    source = {"kind": "manifest", "path": str(path), **({"select": select} if select else {})}
    listing = Stream(images(source), "images", tmp_path / "cache").source
    captions, whys = [], []
    for n in range(len(listing)):
        try:
            captions.append(listing.record(n).caption)
        except BrokenSample as error:
            whys.append(str(error))
    assert "b" in captions
    readable = row in ("a width of 401 digits", "a score that no float holds")
    assert (len(captions), len(whys)) == (1 + (readable and not select), not (readable or select))
    assert all(re.search(r"list\.\w+ row \d", why) for why in whys)


def test_a_folder_is_filtered_by_size(tmp_path, caplog):
    caplog.set_level("INFO")
    source = photos(tmp_path / "photos", "p", [(64, 64), (200, 64), (40, 80), (80, 100)])
    stream = Stream(images({**source, "select": {"min_side": 50, "max_aspect": 2}}), "images", tmp_path)
    assert [stream.source.record(n).caption for n in range(len(stream.source))] == ["p 0", "p 3"]
    assert "2 of 4 samples are selected (1 do not meet min_side 50, 1 do not meet max_aspect 2)" in caplog.text
    with pytest.raises(SourceError, match="0 of 4 samples are selected"):
        Stream(images({**source, "select": {"min_side": 500}}), "images", tmp_path)
