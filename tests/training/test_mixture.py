"""Several sources a medium, lists of files, images of many shapes, and flips: all of it follows from (recipe, step)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vc2.files.video import write_video
from vc2.training.data.batches import load_batches
from vc2.training.data.buckets import nearest
from vc2.training.data.mixture import MixedStream, Mixing, stream_of
from vc2.training.data.plan import Plan
from vc2.training.data.prepared import Prepared, cache_folder, folder_of
from vc2.training.data.stream import Stream
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer
from vc2.training.prepare import prepare
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import Loader, _override, load_recipe
from vc2.training.recipe_sections import Data
from vc2.training.rng import numpy_generator
from vc2.training.sources.lines import Lines, _records
from vc2.training.sources.source import BrokenSample, SourceError

SMALL = {"width": 64, "height": 64, "workers": 0, "held_out": 0, "caption_dropout": 0.0}


def images(source, steps: int = 1000, batch: int = 4, **data) -> Recipe:
    tree = {"name": "data", "steps": steps, "batch": batch, "data": {**SMALL, "images": source, **data}}
    return Recipe.model_validate(tree)


def ramp(width: int, height: int) -> np.ndarray:
    """Dark on the left and bright on the right."""
    row = np.linspace(20, 220, width).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def photos(folder: Path, name: str, sizes: list[tuple[int, int]]) -> dict[str, str]:
    """Pictures with captions; returns their source."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, (width, height) in enumerate(sizes):
        Image.fromarray(ramp(width, height)).save(folder / f"{name}{n:02d}.png")
        (folder / f"{name}{n:02d}.txt").write_text(f"{name} {n}")
    return {"kind": "folder", "path": str(folder)}


def read(recipe: Recipe, cache: Path, start: int = 0, rank: int = 0, world: int = 1):
    streams = {"images": stream_of(recipe, "images", cache)}
    return list(load_batches(recipe, streams, start, rank, world, pin=False))


def captions(batches) -> list[str]:
    return [caption for batch in batches for caption in batch.captions]


# Mixing


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    seed=st.integers(0, 3),
    places=st.integers(0, 20_000),
)
@settings(max_examples=30)
def test_each_source_is_read_in_its_own_order_without_a_gap(weights, seed, places):
    """Wherever one begins to read: what is at a position follows from it alone."""
    mixing, later = Mixing(weights, seed, (0,)), Mixing(weights, seed, (0,))
    expected = dict(Counter(source for source, _ in (mixing[n] for n in range(places))))
    for position in range(places, places + 300):
        source, own = later[position]
        assert own == expected.get(source, 0)
        expected[source] = own + 1
    assert later[0] == Mixing(weights, seed, (0,))[0]  # and back


def test_shares_are_the_weights():
    """Within every block, and over all of them."""
    mixing = Mixing([3, 1, 0, 1.5], 0, (0,))
    for places in (6400, 64 * 17):
        counts = Counter(mixing[n][0] for n in range(places))
        assert [counts[n] for n in range(4)] == [pytest.approx(places * share / 5.5, abs=1) for share in (3, 1, 0, 1.5)]
    rare = Counter(source for source, _ in map(Mixing([1, 0.0001], 0, (0,)).__getitem__, range(50_005)))
    assert rare[1] == 5
    runs = [mixing[n][0] for n in range(64)]
    assert runs != sorted(runs)
    assert runs != [mixing[64 + n][0] for n in range(64)]
    assert runs != [Mixing([3, 1, 0, 1.5], 1, (0,))[n][0] for n in range(64)]


def test_a_list_of_sources_is_mixed_by_weight(tmp_path):
    mine = photos(tmp_path / "mine", "mine", [(64, 64)] * 6)
    others = photos(tmp_path / "others", "others", [(64, 64)] * 5)
    recipe = images([{**mine, "weight": 3}, others], steps=100)
    whole = read(recipe, tmp_path / "cache")
    seen = captions(whole)
    assert sum(caption.startswith("mine") for caption in seen) == pytest.approx(300, abs=8)
    for name, count in (("mine", 6), ("others", 5)):  # each source's epochs are whole
        own = [caption for caption in seen if caption.startswith(name)]
        for start in range(0, len(own) - count, count):
            assert len(set(own[start : start + count])) == count
    assert [b.captions for b in read(recipe, tmp_path / "cache", start=60)] == [b.captions for b in whole[60:]]
    shared = zip(*(read(recipe, tmp_path / "cache", rank=rank, world=2) for rank in range(2)), strict=True)
    assert [a.captions + b.captions for a, b in shared] == [b.captions for b in whole]


def test_the_first_source_of_a_list_is_read_as_it_is_alone(tmp_path):
    """In its order: the others change when, and not what."""
    mine = photos(tmp_path / "mine", "mine", [(64, 64)] * 12)
    alone = captions(read(images(mine, steps=6), tmp_path / "cache"))
    mixed = captions(
        read(images([mine, photos(tmp_path / "other", "o", [(64, 64)] * 12)], steps=12), tmp_path / "cache")
    )
    own = [caption for caption in mixed if caption.startswith("mine")]
    assert own == alone[: len(own)]
    assert len(own) > 20
    others = [caption for caption in mixed if caption.startswith("other")]
    assert [caption.split()[1] for caption in others[:12]] != [caption.split()[1] for caption in own[:12]]


def test_a_list_of_sources_trains_goes_on_and_is_validated(recipe, tmp_path):
    mine, others = (photos(tmp_path / name, name, [(64, 64)] * 12) for name in ("mine", "others"))
    sources = [{**mine, "prepared": "moments and text"}, {**others, "weight": 0.5, "prepared": "moments and text"}]
    settings = recipe(steps=3, data={"clips": None, "images": sources, "held_out": 1}, validation={"every": 3})
    assert len(prepare(settings, tmp_path / "cache")) == 2
    trainer = Trainer(settings, tmp_path / "run", tmp_path / "cache")
    assert isinstance(trainer.objective.streams["images"], MixedStream)
    assert len(trainer.objective.held_out["images"]) == 2
    assert trainer.run()
    Trainer(settings, tmp_path / "run", tmp_path / "cache")
    heavier = recipe(steps=3, data={"clips": None, "images": [sources[0], {**sources[1], "weight": 2}], "held_out": 1})
    with pytest.raises(RecipeError, match="another data"):
        Trainer(heavier, tmp_path / "run", tmp_path / "cache")


def test_the_sources_of_a_list_must_fit(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\nsteps: 1\nbatch: 1\ndata: {images: [{kind: folder, path: x}]}\n")
    assert load_recipe(tmp_path / "a.yaml").data.images.members[0].path == Path("x")
    again = load_recipe(tmp_path / "a.yaml")
    assert Recipe.model_validate_json(again.model_dump_json()) == again  # as a checkpoint holds it
    assert load_recipe(tmp_path / "a.yaml", ["data.images.0.path=y"]).data.images.members[0].path == Path("y")
    with pytest.raises(RecipeError, match="1 is no number from 0 to 0"):
        load_recipe(tmp_path / "a.yaml", ["data.images.1.path=y"])
    for images, message in (
        ("[{kind: folder, path: x}, {kind: folder, path: y, prepared: moments}]", "must be prepared alike"),
        ("[{kind: webvid, csv: x, videos: y}]", "webvid lists clips"),
        ("[{kind: folder, pat: x}]", r"unknown key data\.images\.0\.pat; did you mean data\.images\.0\.path\?"),
        ("[]", "data.images"),
        ("[{kind: folder, path: x, weight: 0}]", "weight: .*greater than 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / "a.yaml", [f"data.images={images}"])


# Lists of files


ROWS = [
    {"path": f"{name}.png", "caption": caption, "width": width, "height": 48, "pwatermark": mark, "aesthetic": score}
    for name, caption, width, mark, score in (
        ("a", 'a "quoted" cat,\nwith a line', 64, 0.1, 6.5),
        ("b", "b", 640, 0.9, 6.5),
        ("c", "c", 640, 0.2, None),
        ("d", "", 640, 0.2, 5.0),
        ("e", "e", 640, 0.2, 5.0),
        ("f", "f", 40, 0.2, 5.0),
    )
]


def write_manifest(path: Path, rows: list[dict] = ROWS) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


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


# Buckets


SHAPES = [(300, 300)] * 5 + [(600, 300)] * 8 + [(300, 500)] * 3
BUCKETS = [[96, 48], [48, 96]]


def test_an_image_belongs_to_the_bucket_of_the_nearest_aspect():
    sizes = np.array([(100, 100), (200, 100), (100, 200), (141, 100), (142, 100), (0, 0)])
    buckets = [(64, 64), (96, 48), (48, 96)]
    assert nearest(sizes, buckets).tolist() == [0, 1, 2, 0, 1, 0]
    for width, height in sizes[:5]:
        best = min(buckets, key=lambda size: abs(math.log(size[0] / size[1]) - math.log(width / height)))
        assert buckets[nearest(np.array([(width, height)]), buckets)[0]] == best


def test_a_step_has_one_bucket_and_every_bucket_its_share(tmp_path):
    source = photos(tmp_path / "photos", "p", SHAPES)
    recipe = images(source, steps=160, batch=2, buckets=BUCKETS)
    whole = read(recipe, tmp_path / "cache")
    by_shape: dict[tuple, list[str]] = {}
    for batch in whole:
        by_shape.setdefault(tuple(batch.frames.shape[-2:]), []).extend(batch.captions)
    assert by_shape.keys() == {(64, 64), (48, 96), (96, 48)}
    for shape, members in (((64, 64), range(5)), ((48, 96), range(5, 13)), ((96, 48), range(13, 16))):
        seen, expected = by_shape[shape], {f"p {n}" for n in members}
        assert len(seen) == pytest.approx(20 * len(members), abs=2)
        for start in range(0, len(seen) - len(expected), len(expected)):
            assert set(seen[start : start + len(expected)]) == expected
    later = read(recipe, tmp_path / "cache", start=101)
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[101:], later, strict=True))
    shared = zip(*(read(recipe, tmp_path / "cache", rank=rank, world=2) for rank in range(2)), strict=True)
    assert [a.captions + b.captions for a, b in shared] == [b.captions for b in whole]


def test_images_of_a_list_without_sizes_are_measured(tmp_path):
    """Where sizes are asked for: by buckets, or a `select`. What a list says of a size is taken from there."""
    photos(tmp_path / "photos", "p", [(300, 300), (600, 300), (300, 500), (300, 300), (600, 300)])
    rows = [{"path": f"p{n:02d}.png", "caption": str(n)} for n in range(5)]
    rows[3] |= {"width": 200, "height": 400}
    (tmp_path / "photos" / "p04.png").write_bytes(b"no picture")
    rows += [{"path": "absent.png", "caption": "5"}, {"path": None, "caption": "6"}]
    source = {"kind": "manifest", "path": str(write_manifest(tmp_path / "photos" / "list.jsonl", rows))}
    stream = Stream(images(source, buckets=BUCKETS), "images", tmp_path / "cache")
    expected = [[300, 300], [600, 300], [300, 500], [200, 400], [0, 0], [0, 0], [0, 0]]
    assert stream.source.sizes().tolist() == expected
    assert [len(members) for members in stream.buckets.members] == [4, 1, 2]
    chosen = Stream(images({**source, "select": {"max_aspect": 1.9}}), "images", tmp_path / "cache").source
    assert [chosen.record(n).caption for n in range(len(chosen))] == ["0", "2"]
    (tmp_path / "photos" / "p00.png").unlink()  # scores are the list's alone: nothing is opened
    with pytest.raises(SourceError, match=r"0 of 7 samples are selected \(7 do not meet min_aesthetic 5\)"):
        Stream(images({**source, "select": {"min_aesthetic": 5}}), "images", tmp_path / "cache")


def test_what_is_held_out_is_in_no_bucket(tmp_path):
    source = photos(tmp_path / "photos", "p", SHAPES)
    recipe = images(source, steps=40, buckets=BUCKETS, held_out=1)
    [held_out] = stream_of(recipe, "images", tmp_path / "cache").held_out(1)
    seen = captions(read(recipe, tmp_path / "cache"))
    assert held_out.caption not in seen
    assert len(set(seen)) == len(SHAPES) - 1


def test_buckets_of_a_mixture_share_its_weights(tmp_path):
    mine = photos(tmp_path / "mine", "mine", [(300, 300)] * 6 + [(600, 300)] * 2)
    others = photos(tmp_path / "others", "others", [(600, 300)] * 4)
    batches = read(images([mine, others], steps=200, buckets=BUCKETS), tmp_path / "cache")
    counts = Counter((caption.split()[0], batch.frames.shape[-1]) for batch in batches for caption in batch.captions)
    assert counts["mine", 64] == pytest.approx(300, abs=4)
    assert counts["mine", 96] == pytest.approx(100, abs=4)
    assert counts["others", 96] == pytest.approx(400, abs=4)


def test_without_buckets_a_plan_is_what_it_was():
    """The numbers are those of 0.2.0."""
    data = {"clips": {"kind": "procedural"}, "images": {"kind": "procedural"}, "lengths": [[16, 1, 8], [8, 1, 2]]}
    plan = Plan(Recipe.model_validate({"name": "x", "steps": 1000, "batch": 4, "data": data}))
    steps = [plan[n] for n in (0, 1, 2, 3, 40, 5000, 9999)]
    assert [(s.medium[0], s.frames, s.first, s.count) for s in steps] == [
        ("c", 8, 0, 4),
        ("i", 1, 0, 32),
        ("c", 16, 4, 4),
        ("c", 16, 8, 4),
        ("c", 8, 136, 4),
        ("c", 16, 18136, 4),
        ("c", 8, 36412, 4),
    ]


def test_buckets_ask_for_sizes(tmp_path):
    (tmp_path / "anno.jsonl").write_text('{"img_path": "a.png", "prompt": "a"}\n')
    source = {"kind": "journeydb", "jsonl": str(tmp_path / "anno.jsonl"), "images": str(tmp_path)}
    with pytest.raises(SourceError, match="which journeydb does not tell; use folder, shards or manifest"):
        Stream(images(source, buckets=BUCKETS), "images", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"a bucket is \[width, height\], multiples of 8 .* found \[60, 64\]"):
        images(source, buckets=[[60, 64]])


def test_prepared_latents_have_their_bucket_and_both_sides(recipe, tmp_path):
    """Trained, validated and gone on with; flips are of the picture, and not of its latents."""
    source = {**photos(tmp_path / "photos", "p", [(300, 300)] * 8 + [(600, 300)] * 8), "prepared": "moments and text"}
    data = {"clips": None, "images": source, "buckets": BUCKETS, "flip": 0.5, "held_out": 1, "caption_dropout": 0.0}
    settings = recipe(steps=4, data=data, validation={"every": 4})
    [folder] = prepare(settings, tmp_path / "cache")
    stored = Prepared(folder, tmp_path / "cache" / "index", sized=True)
    assert stored.sizes().tolist() == [[64, 64]] * 8 + [[96, 48]] * 8
    trainer = Trainer(settings, tmp_path / "run", tmp_path / "cache")
    for index in (0, 15):
        plain, flipped = stored.sample(index), stored.sample(index, flipped=True)
        assert plain.frames.shape == flipped.frames.shape == (1, 8, *([(8, 8), (6, 12)][index > 0]))
        straight = Stream(settings, "images", tmp_path / "cache")
        pixels = straight.read(index, 1, (1, 1), numpy_generator(0)).frames
        expected = trainer.objective.encoders.moments(pixels.flip(-1))
        assert torch.allclose(expected, flipped.frames.float(), atol=2e-2)
        assert not torch.allclose(flipped.frames.float(), plain.frames.float(), atol=2e-2)
    batches = trainer.objective.batches(0, 0, 1)
    shapes = {tuple(next(batches).frames.shape[-2:]) for _ in range(4)}
    assert shapes == {(8, 8), (6, 12)}
    assert trainer.run()
    Trainer(settings, tmp_path / "run", tmp_path / "cache")


# Flips


def test_flips_are_drawn_and_change_nothing_else(tmp_path):
    source = photos(tmp_path / "photos", "p", [(64, 64)] * 8)
    plain, sometimes, always = (read(images(source, steps=50, flip=flip), tmp_path) for flip in (0, 0.25, 1))
    assert captions(plain) == captions(sometimes) == captions(always)
    left = torch.cat([batch.frames[:, 0, 0, 0, 0] for batch in sometimes])  # dark, unless it is flipped
    share = (left > 128).float().mean()
    assert 0.15 < share < 0.35
    for batch, mirrored in zip(plain, always, strict=True):
        assert torch.equal(batch.frames.flip(-1), mirrored.frames)
        assert batch.frames[0, 0, 0, 0, 0] < 30


def test_all_frames_of_a_clip_are_flipped_alike(tmp_path):
    for n in range(4):
        write_video(tmp_path / f"{n}.mp4", [ramp(64, 64)] * 8, 8)
        (tmp_path / f"{n}.txt").write_text(f"clip {n}")
    recipe = images(None, clips={"kind": "folder", "path": str(tmp_path)}, flip=0.5, lengths=[[4, 1, 2]])
    stream, sides = Stream(recipe, "clips", tmp_path), set()
    for slot in range(4):
        frames = stream.draw(Plan(recipe)[0], slot).frames
        flipped = frames[:, 0, :, 0].float().mean(1) > 128
        assert len(set(flipped.tolist())) == 1
        sides.add(bool(flipped[0]))
    assert sides == {False, True}


# Caches


def test_what_is_encoded_otherwise_is_another_cache():
    source = {"kind": "folder", "path": "x", "prepared": "moments"}
    networks = {"autoencoder": "a", "text": "b"}
    select = {"select": {"min_side": 64}}
    recipes = [images(source), images(source, buckets=BUCKETS), images(source, flip=0.5), images({**source, **select})]
    places = [cache_folder(recipe, "images", "files", Path(), networks).name for recipe in recipes]
    assert len(set(places)) == 4
    assert places[0] == "folder-images-c7a2ed24e1f38ccc"  # the name that 0.2.0 gave it
    [heavier] = images([{**source, "weight": 3}]).data.images.members
    place = cache_folder(recipes[0], "images", "files", Path(), networks, heavier)
    assert place.name == places[0]  # how often samples are read changes nothing


def test_a_cache_belongs_to_the_data_wherever_it_lies(recipe, tmp_path):
    source = {**photos(tmp_path / "photos", "p", [(64, 64)] * 12), "prepared": "moments"}
    networks = {"autoencoder": "a", "text": "b"}

    def place(path: str) -> Path:
        settings = recipe(data={"clips": None, "images": {**source, "path": path}})
        stream = Stream(settings, "images", tmp_path / "cache")
        return folder_of(settings, "images", stream.section, stream.source, tmp_path / "cache", networks)

    first = place(source["path"])
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert place(str(tmp_path / "link")) == first
    settings = recipe(data={"clips": None, "images": source})
    stream = Stream(settings, "images", tmp_path / "cache")
    old = cache_folder(settings, "images", stream.source.identity(), tmp_path / "cache", networks)
    assert old != first
    picture = tmp_path / "photos" / "p03.png"
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.write_bytes(content)
    assert place(source["path"]) != first
    content[-20] ^= 1
    picture.write_bytes(content)
    assert place(source["path"]) == first
    settings = recipe(data={"clips": None, "images": source})
    stream = Stream(settings, "images", tmp_path / "cache")
    old = cache_folder(settings, "images", stream.source.identity(), tmp_path / "cache", networks)
    old.mkdir(parents=True)  # what 0.2.0 has begun is gone on with
    assert place(source["path"]) == old


def test_the_examples_that_people_copy_are_right():
    readme = (Path(__file__).parents[2] / "training" / "README.md").read_text()
    examples = [yaml.load(text, Loader) for text in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)]
    assert len(examples) >= 4
    for example in examples:
        assert example.keys() == {"data"}
        Data.model_validate(example["data"])
    [overrides] = re.findall(r"`(data\.images\.1[^`\s]*=[^`\s]*)`", readme)
    tree = examples[2]
    _override(tree, overrides)
    assert Data.model_validate(tree["data"]).images.members[1].weight == 0.5
