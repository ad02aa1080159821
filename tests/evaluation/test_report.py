"""The report of scored sets: tables, clips by rule, pages, and whether they follow from the rows."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.evaluation.scored import HOSTILE, PROMPTS, hashed, of_set, score
from vc2.evaluation import __main__ as command
from vc2.evaluation import verify
from vc2.evaluation.report import clips, tables
from vc2.evaluation.report.material import Material, SetOfClips, read_sets
from vc2.evaluation.report.render import markdown_cell, number, render, schema
from vc2.evaluation.rows import Score, append_scores
from vc2.evaluation.sets import SCORES
from vc2.files.video import write_video
from vc2.metrics.registry import MEASURES


def material(*scores: Score, sets: tuple[str, ...] = ("ours", "theirs"), by: str = "flicker") -> Material:
    of_sets = tuple(SetOfClips(name, name, 3, None) for name in sets)
    made = {"commit": "c" * 40, "versions": {"python": "3"}, "command": "report"}
    whole = Material("A title", of_sets, tuple(scores), by, 2, 0, made)
    return replace(whole, shown=tuple(one.tree() for one in clips.choose(whole)))


def strips_of(whole: Material) -> list[clips.Strip]:
    return [clips.Strip("data:image/webp;base64,AAAA", 8, 1.0, 16, 16) for _ in whole.shown]


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[Path]:
    """Clips of two sets, and their rows."""
    folder = tmp_path_factory.mktemp("sets")
    for level, name in enumerate(("ours", "theirs"), 1):
        (folder / name).mkdir()
        for shade, prompt in enumerate(PROMPTS):
            frames = np.full((8, 32, 48, 3), 60 * level + 20 * shade, np.uint8)
            frames[np.arange(8), :, np.arange(8) * 4] = 255
            write_video(folder / name / f"{prompt}-0.mp4", frames, 8)
        append_scores(folder / name / SCORES, hashed(folder / name, of_set(name, level)))
    return [folder / "ours", folder / "theirs"]


@pytest.fixture(scope="module")
def made(sets, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert command.main(["report", *map(str, sets), "-o", str(out), "--title", HOSTILE, "--prompts", "2"]) == 0
    return out


# Tables


def test_means_differences_and_controls(sets):
    flicker, sharpness = tables.tables(["ours", "theirs"], [*of_set("ours", 1), *of_set("theirs", 2)]).measures
    ours, theirs = flicker.cells
    assert (ours.value.mean, ours.value.clips, ours.value.prompts) == (2.0, 3, 3)
    assert ours.value.interval[0] < 2.0 < ours.value.interval[1]
    assert theirs.against.mean == pytest.approx(1.0)  # theirs less ours, prompt by prompt
    assert theirs.against.interval == pytest.approx((1.0, 1.0))
    assert ours.against is None
    assert ours.controls["frozen"].mean == 0
    assert ours.beaten_by == ("frozen",)  # lower is better, and shuffled has more
    assert sharpness.weights == ("f" * 64,)
    assert flicker.about == MEASURES["flicker"].about


def test_the_interval_draws_prompts_and_not_clips():
    """Ten clips of each of three prompts tell no more about other prompts than one clip of each."""
    one = tables.clustered({"a": [1.0], "b": [2.0], "c": [4.0]})
    ten = tables.clustered({"a": [1.0] * 10, "b": [2.0] * 10, "c": [4.0] * 10})
    assert ten.interval == pytest.approx(one.interval)
    assert (ten.clips, ten.prompts) == (30, 3)
    assert tables.clustered({"a": [1.0, 3.0]}).interval is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        prompts = rng.normal(0, 1, 30)
        drawn = tables.clustered({str(i): (mean + rng.normal(0, 0.3, 4)).tolist() for i, mean in enumerate(prompts)})
        inside += drawn.interval[0] < 0 < drawn.interval[1]
    assert 86 <= inside <= 99


def test_a_measure_of_the_whole_set_counts_what_it_saw():
    rows = [score("ours", "", "fvd", 485.0, clip=None, prompt_id=None, seed=None, n=2048)]
    (fvd,) = tables.tables(["ours"], rows).measures
    assert (fvd.cells[0].value.mean, fvd.cells[0].value.clips, fvd.cells[0].value.interval) == (485.0, 2048, None)


def test_what_was_skipped_is_named_and_has_no_number():
    made = tables.tables(["ours"], of_set("ours", 1))
    assert [one.measure for one in made.skipped] == ["clipsim"]
    assert made.skipped[0].reason == "skipped: needs a.pt"
    assert "clipsim" not in [table.measure for table in made.measures]


def test_numbers_have_three_digits():
    assert [number(x) for x in (0, 0.98765, -12.3456, 1234.5, 1.2e-9)] == [
        "0",
        "0.988",
        "\N{MINUS SIGN}12.3",
        "1234",
        "1.20e\N{MINUS SIGN}09",
    ]


# Clips


def test_worst_and_median_go_by_the_measures_better_side():
    rows = [*of_set("ours", 1), *of_set("theirs", 2)]
    by = {rule: one.clip for one in clips.choose(material(*rows)) if one.set == "ours" for rule in one.rules}
    assert by["worst"] == "sea-0.mp4"  # the most flicker
    assert by["median"] == "evil-0.mp4"
    sharp = [score("ours", prompt, "sharpness", value) for prompt, value in zip(PROMPTS, (3.0, 1.0, 2.0), strict=True)]
    by = {
        rule: one.clip for one in clips.choose(material(*sharp, sets=("ours",), by="sharpness")) for rule in one.rules
    }
    assert by["worst"] == "evil-0.mp4"  # the least sharpness


def test_side_by_side_are_prompts_that_all_sets_have():
    rows = [*of_set("ours", 1), *(row for row in of_set("theirs", 2) if row.prompt_id != "sea")]
    shown = [one for one in clips.choose(material(*rows)) if "prompt" in one.rules]
    assert sorted((one.set, one.prompt_id) for one in shown) == [
        ("ours", "evil"),
        ("ours", "panda"),
        ("theirs", "evil"),
        ("theirs", "panda"),
    ]


def test_the_first_measure_that_every_set_has_and_that_has_a_side_is_taken():
    rows = [score("ours", "sea", "flow", 1.0), *of_set("ours", 1), *of_set("theirs", 2)]
    assert clips.default_measure(["ours", "theirs"], rows) == "flicker"
    assert clips.default_measure(["ours", "none"], rows) is None


def test_a_strip_holds_every_frame_in_order(sets):
    import base64
    import io

    from PIL import Image

    strip = clips.strip(sets[0] / "panda-0.mp4")
    assert (strip.frames, strip.seconds, strip.width, strip.height) == (8, 1.0, 48, 32)
    sheet = Image.open(io.BytesIO(base64.b64decode(strip.src.partition(",")[2])))
    assert sheet.size == (48, 8 * 32)
    brightest = [int(np.asarray(sheet.convert("L"))[32 * i + 16].argmax()) // 4 for i in range(8)]
    assert brightest == pytest.approx(list(range(8)), abs=1)


def test_long_clips_are_thinned_and_last_as_long(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((70, 16, 16, 3), np.uint8), 10)
    strip = clips.strip(tmp_path / "a.mp4")
    assert strip.frames <= clips.FRAMES
    assert strip.seconds == pytest.approx(7, abs=0.3)


# Pages


def test_numbers_fit_their_schema(made):
    jsonschema.Draft202012Validator.check_schema(schema())
    tree = json.loads((made / "report.json").read_text())
    jsonschema.validate(tree, schema())
    del tree["tables"][0]["better"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, schema())


class Tags(HTMLParser):
    """Tags, and their attributes, as a browser sees them."""

    def __init__(self, text: str):
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_hostile_prompts_and_names_stay_text(made):
    rows = [*of_set(HOSTILE, 1), *of_set("theirs", 2)]
    whole = replace(material(*rows, sets=(HOSTILE, "theirs")), title=HOSTILE)
    for text in ((made / "report.html").read_text(), render(whole, strips_of(whole))["report.html"]):
        tags = Tags(text).seen
        assert [tag for tag, _ in tags].count("script") == 1
        assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
        assert not any(
            "javascript:" in (value or "") for _, a in tags for n, value in a.items() if n in ("href", "src")
        )
        # Nothing is fetched: no address but pictures in the page.
        addresses = [a[name] for _, a in tags for name in ("src", "href") if a.get(name)]
        assert all(address.startswith("data:") for address in addresses)
    markdown = render(whole, strips_of(whole))["report.md"]
    assert "<img" not in re.sub(r"\\<", "", markdown)
    (row,) = [line for line in markdown.splitlines() if line.startswith("| flicker ")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 8  # the name's own bar is escaped


def test_a_cell_of_markdown_has_one_line():
    assert markdown_cell("a\n| b") == "a \\| b"


def test_controls_stand_beside_the_scores_and_the_skipped_are_named(made):
    for text in ((made / "report.md").read_text(), (made / "report.html").read_text()):
        assert "needs a.pt" in text
        assert "frozen" in text
        assert "ground truth" in text
        assert "library 1.0" in text
        assert "ffffffffffff" in text


def test_the_report_follows_from_its_rows(made, tmp_path, capsys):
    assert verify.difference(made) == ""
    rows = (made / "rows.jsonl").read_text()
    try:
        (made / "rows.jsonl").write_text(rows.replace('"value": 20,', '"value": 21,', 1))
        assert re.search(r"report\.json:\d+: the rows say", verify.difference(made))
        assert command.main(["verify", str(made)]) == 1
    finally:
        (made / "rows.jsonl").write_text(rows)


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_number_that_was_changed_by_hand_is_found(made, name):
    text = (made / name).read_text()
    try:
        (made / name).write_text(text.replace("2.00", "1.00", 1))
        assert f"{name}:" in verify.difference(made)
    finally:
        (made / name).write_text(text)


def test_clips_that_were_picked_by_hand_are_found(made):
    about, html = (made / "about.json").read_text(), (made / "report.html").read_text()
    try:
        tree = json.loads(about)
        tree["shown"][0]["rules"] = ["worst", "median", "random"]
        (made / "about.json").write_text(json.dumps(tree))
        assert command.main(["verify", str(made)]) == 2
        (made / "about.json").write_text(about)
        pictures = re.findall(r"data:image/webp;base64,[^\"]*", html)
        (made / "report.html").write_text(html.replace(pictures[0], "data:image/webp;base64,AAAA"))
        assert command.main(["verify", str(made)]) == 2
    finally:
        (made / "about.json").write_text(about)
        (made / "report.html").write_text(html)


def test_verify_knows_what_it_can_check(tmp_path, capsys):
    assert command.main(["verify", str(tmp_path)]) == 2
    assert "holds no report" in capsys.readouterr().err


def test_the_papers_report_here_follows_from_its_rows():
    """docs/miniature, as it is committed."""
    folder = Path(__file__).parents[2] / "docs" / "miniature"
    assert verify.difference(folder) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sets: [*sets, "--by", "beauty"], "no clip has a score of that name"),
        (lambda sets: [sets[0], sets[0]], "more than one set is called 'ours'"),
        (lambda sets: [str(Path(sets[0]).parent)], "holds no clips"),
    ],
)
def test_the_command_tells_what_is_wrong(sets, tmp_path, capsys, change, message):
    arguments = change([str(folder) for folder in sets])
    assert command.main(["report", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_that_lie_elsewhere_are_read(sets, tmp_path):
    rows = tmp_path / "rows.jsonl"
    for folder in sets:
        target = tmp_path / folder.name
        target.mkdir()
        for clip in folder.glob("*.mp4"):
            (target / clip.name).write_bytes(clip.read_bytes())
        rows.write_text((rows.read_text() if rows.exists() else "") + (folder / SCORES).read_text())
    arguments = [str(tmp_path / folder.name) for folder in sets]
    assert command.main(["report", *arguments, "--rows", str(rows), "-o", str(tmp_path / "out")]) == 0
    tree = json.loads((tmp_path / "out" / "report.json").read_text())
    cells = tree["tables"][0]["sets"]
    assert [cell["value"]["mean"] for cell in cells] == [2.0, 3.0]
    assert [cell["controls"]["ground truth"]["clips"] for cell in cells] == [2, 2]


def test_scores_are_of_the_clips_that_are_there(sets, tmp_path, caplog):
    """In one file lie another set's scores of clips of the same names, and those of a clip before it was made anew."""
    ours, theirs = (tmp_path / name for name in ("a", "b"))
    for target, source in zip((ours, theirs), sets, strict=True):
        shutil.copytree(source, target, ignore=lambda *_: [SCORES])
    rows = tmp_path / "rows.jsonl"
    append_scores(rows, [*hashed(sets[1], of_set("theirs", 2)), *hashed(sets[0], of_set("ours", 1))])
    (theirs / "sea-0.mp4").write_bytes((sets[0] / "sea-0.mp4").read_bytes())
    ((one, other), scores) = read_sets([theirs, ours], [rows])
    assert (one.name, other.name) == ("theirs", "ours")
    assert "1 clip changed" in caplog.text
    assert "clipsim were of other clips" in caplog.text  # that it was skipped
    values = {(s.set, s.prompt_id): s.value for s in scores if s.metric == "flicker" and s.control is None}
    assert values == {
        ("theirs", "panda"): 2.0,
        ("theirs", "evil"): 3.0,
        ("ours", "panda"): 1.0,
        ("ours", "evil"): 2.0,
        ("ours", "sea"): 3.0,
    }
