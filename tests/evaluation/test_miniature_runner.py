"""The runs of the paper in miniature: what is written down, and what goes on after it was stopped."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from vc2.evaluation.miniature import __main__ as command
from vc2.evaluation.miniature import arms, rows, runner
from vc2.evaluation.miniature.arms import ARMS, LATER, REPEAT_ROOT, Place
from vc2.evaluation.miniature.score import scenes
from vc2.training.errors import RecipeError
from vc2.training.sources.paper_world import world_hash
from vc2.training.tally import NonFiniteError


def test_a_row_that_was_cut_off_is_written_again(tmp_path):
    rows.append(rows.path_of(tmp_path, 3), {"arm": "a", "step": 1, "weights": "ema", "fps": 8})
    with open(rows.path_of(tmp_path, 3), "a") as file:
        file.write('{"arm": "b", "st')
    assert [row["arm"] for row in rows.read(rows.path_of(tmp_path, 3))] == ["a"]
    rows.append(rows.path_of(tmp_path, 3), {"arm": "b", "step": 1, "weights": "ema", "fps": 8})
    assert [json.loads(line)["arm"] for line in rows.path_of(tmp_path, 3).read_text().splitlines()] == ["a", "b"]


class Killed(BaseException):
    pass


@pytest.fixture
def fake_runner(tmp_path, monkeypatch):
    """A runner whose training and scoring leave the files that the real ones leave, and nothing else. `events` is what
    was done; once it has `deaths[0]` entries, the process dies.
    """
    events: list[tuple] = []
    deaths: list[int] = []
    diverge: set[tuple[str, str]] = set()

    def happen(*event):
        if deaths and len(events) >= deaths[0]:
            deaths.pop(0)
            raise Killed
        events.append(event)

    class Trainer:
        def __init__(self, recipe, folder, cache):
            self.recipe, self.folder = recipe, folder

        def run(self):
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder.name, self.folder.parent.name) in diverge:
                raise NonFiniteError("no finite loss")
            happen("train", self.folder.name, self.recipe.steps)
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            return True

    class Runner(runner.Runner):
        fingerprints = {"autoencoder": "x", "text": "y"}

        def prepare(self):
            pass

        def score(self, name, seed, scoring, weights, trained):
            happen("score", name, scoring)
            about = {"world": world_hash(), "recipe": self.identity(name), "commit": self.commit}
            key = {"arm": name, "step": scoring.step, "weights": scoring.weights, "fps": scoring.fps}
            rows.append(rows.path_of(self.folder, seed), {**key, **about, "encoders": self.fingerprints})

        def score_random(self, seed):
            [scoring] = self.scorings(runner.RANDOM, seed)
            self.score(runner.RANDOM, seed, scoring, None, 0.0)

    monkeypatch.setattr(runner, "Trainer", Trainer)
    monkeypatch.setattr(runner, "export", lambda *_, **__: None)
    monkeypatch.setattr(runner.encoders, "make", lambda _: True)
    monkeypatch.setattr(runner.encoders, "GATES", tmp_path / "gates.json")
    gates = {"world": world_hash(), "encoders": Runner.fingerprints, "gates": [{"name": "g", "passed": True}]}
    (tmp_path / "gates.json").write_text(json.dumps(gates))
    place = Place(tmp_path / "runs", tmp_path / "e.safetensors")

    def make(commit="abc", decides=True, later=False, seeds=(2,)):
        names = [arm.name for arm in LATER] if later else Runner.names
        return Runner(place, tmp_path / ("later" if later else "rows"), seeds, decides, commit, names)

    make.events, make.deaths, make.rows, make.diverge = events, deaths, tmp_path / "rows", diverge
    return make


def test_what_is_killed_anywhere_goes_on_and_scores_everything_once(fake_runner):
    fake_runner.deaths += [1, 4, 9, 30, 31, 60]
    for _ in range(len(fake_runner.deaths)):
        with pytest.raises(Killed):
            fake_runner().run()
    fake_runner().run()
    written = [rows.key_of(row) for row in rows.read(rows.path_of(fake_runner.rows, 2))]
    one = fake_runner()
    wanted = [
        (name, s.step, s.weights, s.fps)
        for name in (*(arm.name for arm in ARMS), runner.RANDOM)
        for s in one.scorings(name, 2)
    ]
    assert sorted(written) == sorted(wanted)
    done = len(fake_runner.events)
    one.run()
    assert len(fake_runner.events) == done


def test_finetunes_are_scored_on_their_way_before_they_train_on(fake_runner):
    fake_runner().run()
    mine = [
        (kind, what if kind == "train" else what.step) for kind, name, what in fake_runner.events if name == "F-Spa-DIR"
    ]
    steps = (50, 100, 200, 400, 1000)
    assert mine == [pair for step in steps for pair in (("train", step), ("score", step))] + [("score", 1000)]


def test_what_is_asked_later_starts_from_what_the_others_left(fake_runner):
    fake_runner().run()
    fake_runner.events.clear()
    fake_runner("def", decides=False, later=True).run()
    assert {name for _, name, *_ in fake_runner.events} == {arm.name for arm in LATER}
    assert [kind for kind, *_ in fake_runner.events] == ["train", "score"] * len(LATER)


def test_what_is_asked_later_is_not_waited_for_where_nobody_makes_its_start(fake_runner, tmp_path):
    fake_runner().run()
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(RecipeError, match=r"seed-2/F-base, .*seed-2/P-base: not finished here"):
        fake_runner(decides=False, later=True).run()


def test_what_is_asked_later_is_made_of_the_seeds_whose_bases_are_here(fake_runner, tmp_path, caplog):
    fake_runner(seeds=(2, 3)).run()
    shutil.rmtree(tmp_path / "runs" / "seed-2")
    later = fake_runner("def", decides=False, later=True, seeds=(2, 3))
    later.run()
    assert [row["arm"] for row in rows.read(rows.path_of(later.folder, 3))] == [arm.name for arm in LATER]
    assert not rows.read(rows.path_of(later.folder, 2))
    assert "seed-2/F-base" in caplog.text
    assert "only seeds 3 are run" in caplog.text


def test_a_job_that_another_process_holds_is_left_to_it(fake_runner):
    one, other = fake_runner(), fake_runner()
    with runner.FileLock(one._lock("2-SD")):
        assert not other.attempt("SD", 2)
    assert other.attempt("SD", 2)
    assert not other.attempt("SD", 2)


def test_rows_of_other_code_are_refused(fake_runner):
    fake_runner().run()
    with pytest.raises(RecipeError, match=r"seed-2\.jsonl: F-base has another commit, abc"):
        fake_runner("def").run()
    text = rows.path_of(fake_runner.rows, 2).read_text()
    rows.path_of(fake_runner.rows, 2).write_text(text.replace(world_hash(), "0" * 16))
    with pytest.raises(RecipeError, match="another world"):
        fake_runner().run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoders": {"autoencoder": "z", "text": "y"}}, "is of encoders .*'z'.* before the seeds that count"),
        ({"world": "another"}, "is of world another"),
        ({"gates": [{"name": "frozen", "passed": False}]}, "frozen failed; in such a world nothing is run"),
    ],
)
def test_seeds_that_count_need_gates_of_their_own_that_passed(fake_runner, tmp_path, change, message):
    path = tmp_path / "gates.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecipeError, match=message):
        fake_runner().run()
    assert fake_runner.events == []


def test_gates_that_say_the_same_stay_as_they_are(tmp_path, monkeypatch):
    """Rows of seeds are held to the file as it was."""
    monkeypatch.setattr(command, "GATES", tmp_path / "docs" / "gates.json")
    command.keep_gates({"commit": "a", "gates": [1]})
    command.keep_gates({"commit": "b", "gates": [1]})
    assert json.loads(command.GATES.read_text())["commit"] == "a"
    command.keep_gates({"commit": "c", "gates": [2]})
    assert json.loads(command.GATES.read_text()) == {"commit": "c", "gates": [2]}


def test_rows_that_came_along_are_not_made_again(fake_runner, tmp_path):
    """On another machine, which has the rows alone, of one model not even these."""
    fake_runner().run()
    path = rows.path_of(fake_runner.rows, 2)
    shutil.rmtree(tmp_path / "runs")
    fake_runner.events.clear()
    fake_runner().run()
    assert fake_runner.events == []
    path.write_text("".join(x for x in path.read_text().splitlines(True) if '"P-Temp-LORA"' not in x))
    fake_runner().run()
    assert {name for _, name, *_ in fake_runner.events} == {"SD", "P-base", "P-Temp-LORA"}
    assert {name for kind, name, *_ in fake_runner.events if kind == "score"} == {"P-Temp-LORA"}


def test_the_next_number_takes_the_place_of_a_seed_that_cannot_finish(fake_runner, caplog):
    fake_runner.diverge.add(("F-Spa-LORA", "seed-2"))
    fake_runner().run()
    assert "seed 2 cannot finish, and the next number takes its place: no finite loss" in caplog.text
    there = {seed: {row["arm"] for row in rows.read(rows.path_of(fake_runner.rows, seed))} for seed in (2, 3, 4)}
    assert "F-Spa-LORA" not in there[2]
    assert there[3] == {arm.name for arm in ARMS} - {"SD"} | {"random"}
    assert there[4] == set()
    done = len(fake_runner.events)
    fake_runner().run()
    assert len(fake_runner.events) == done
    fake_runner.diverge.add(("F-Spa-LORA", "seed-3"))
    shutil.rmtree(fake_runner.rows)
    with pytest.raises(NonFiniteError):  # where nothing is decided, it is an error as any other
        fake_runner(decides=False).run()


def test_anyone_can_repeat_it_beside_the_rows_that_count(tmp_path, monkeypatch):
    """From any commit, into a folder of its own, held to one commit as those that count are."""
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rows, "commit", lambda: "abc-dirty")
    monkeypatch.setattr(runner.Runner, "run", lambda self: made.append(self))
    assert command.main(["run", "--seeds", "3", "--repeat"]) == 0
    (one,) = made
    assert (one.folder, one.place.root) == (REPEAT_ROOT / "rows", REPEAT_ROOT)
    assert (one.seeds, one.decides, one.place.quick) == ((2, 3, 4), True, False)


def test_seeds_that_count_need_a_clean_commit_and_fixed_expectations(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for commit in ("", "abc-dirty"):
        monkeypatch.setattr(rows, "commit", lambda commit=commit: commit)
        assert command.main(["run", "--seeds", "1"]) == 2
        assert "from a commit without changes" in capsys.readouterr().err
    monkeypatch.setattr(rows, "commit", lambda: "abc")
    (tmp_path / "docs" / "miniature").mkdir(parents=True)
    (tmp_path / "docs" / "miniature" / "expectations.md").write_text("Status: draft.")
    assert command.main(["run", "--seeds", "1"]) == 2
    assert "is a draft" in capsys.readouterr().err


@pytest.mark.slow
def test_a_seed_of_few_models_steps_and_prompts_for_real(tmp_path, monkeypatch):
    """Prepared, trained, sampled, judged and written down, and shown."""
    monkeypatch.setattr(arms, "QUICKLY", 150)
    names = ("SD", "F-base", "F-Spa-DIR", runner.RANDOM)
    monkeypatch.setattr(runner, "PREPARED_BY", ("F-base", "F-Spa-DIR"))
    monkeypatch.setattr(runner, "scenes", lambda some: scenes(some)[:4])
    place, folder = Place(tmp_path / "runs", tmp_path / "encoders.safetensors", quick=True), tmp_path / "rows"
    runner.Runner(place, folder, (2,), False, "abc", names).run()
    found = {row["arm"]: row for row in rows.read(rows.path_of(folder, 2))}
    assert found.keys() == {"F-base", "F-Spa-DIR", "random"}
    for row in found.values():
        assert len(row["motion_error"]) == row["prompts"] == 4
        assert all(0 <= error <= 1 for error in row["motion_error"])
        assert all(map(math.isfinite, row["distance"].values()))
    change = {name: found[name]["change"] for name in ("F-Spa-DIR", "random")}
    assert change["F-Spa-DIR"]["temporal"] == change["random"]["temporal"] == 0
    assert change["random"]["spatial"] == pytest.approx(change["F-Spa-DIR"]["spatial"], rel=0.01)
    assert change["random"]["spatial"] > 0
    assert (place.root / "seed-2" / "F-Spa-DIR" / "model.safetensors").is_file()
    written = rows.path_of(folder, 2).read_bytes()
    runner.Runner(place, folder, (2,), False, "abc", names).run()
    assert rows.path_of(folder, 2).read_bytes() == written
