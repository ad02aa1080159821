"""The paper in miniature: what is written down, what goes on after it was stopped, and how the claims are decided."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import create_model
from scipy import stats

from vc2.evaluation import statistics
from vc2.evaluation.miniature import __main__ as command
from vc2.evaluation.miniature import arms, claims, gates, rows, runner
from vc2.evaluation.miniature.arms import ARMS, BY_NAME, Arm, Place
from vc2.evaluation.miniature.gates import of_a_seed, share_right
from vc2.evaluation.miniature.score import scenes
from vc2.evaluation.picture import DEFECTS, Scale
from vc2.metrics.distances import kernel
from vc2.training.errors import RecipeError
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe
from vc2.training.sources.paper_world import seen, world_hash

# Statistics


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_sign_flips_agree_with_scipy(alternative):
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = rng.normal(0.3, 1, 7)
        theirs = stats.permutation_test(
            (x,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
        )
        assert statistics.sign_flip(x, alternative) == pytest.approx(theirs.pvalue)


def test_eight_seeds_can_decide_and_three_cannot():
    assert 5 * statistics.sign_flip([0.1] * 8) < 0.05
    assert statistics.sign_flip([0.1] * 3) > 0.05


def test_equal_is_within_the_margin_and_not_merely_undecided():
    assert statistics.equivalence([0.01, -0.02, 0.0, 0.01, -0.01, 0.02, 0.01, 0.0], 0.1) < 0.01
    assert statistics.equivalence([0.5, -0.5, 0.4, -0.4, 0.3, -0.3, 0.2, -0.2], 0.1) > 0.05
    assert statistics.equivalence([0.2] * 8, 0.1) > 0.5


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


# Arms


def test_table_3_is_there_and_every_arm_starts_from_an_earlier_one():
    names = [arm.name for arm in ARMS]
    assert len(names) == len(set(names))
    for arm in ARMS:
        assert arm.start is None or names.index(arm.start) < names.index(arm.name)
        assert arm.name == "SD" or arm.start == ("SD" if arm.name.endswith("base") else f"{arm.name[0]}-base")


def test_an_identity_tells_recipes_apart_and_not_seeds_or_folders(tmp_path):
    place, other = (Place(tmp_path / name, tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert len({place.identity(arm) for arm in ARMS}) == len(ARMS)
    assert all(place.identity(arm) == other.identity(arm) for arm in ARMS)
    hotter = Arm("F-Spa-DIR", "F-Spa-DIR", "F-base", ("optimizer.lr=1e-3",))
    assert place.identity(hotter) != place.identity(BY_NAME["F-Spa-DIR"])
    assert replace(place, quick=True).identity(BY_NAME["P-Temp-LORA"]) != place.identity(BY_NAME["P-Temp-LORA"])


def test_an_identity_stays_when_the_trainer_gets_an_option(tmp_path, monkeypatch):
    """Or rows would be refused that it has nothing to do with."""
    before = Place(tmp_path / "a", tmp_path / "encoders.safetensors").identity(BY_NAME["F-Spa-DIR"])
    later = create_model("Later", __base__=Recipe, new=(int, 3))
    monkeypatch.setattr(arms, "load_recipe", lambda *what: later.model_validate(load_recipe(*what).model_dump()))
    place = Place(tmp_path / "b", tmp_path / "encoders.safetensors")
    assert place.recipe(BY_NAME["F-Spa-DIR"], 0).new == 3
    assert place.identity(BY_NAME["F-Spa-DIR"]) == before


def test_what_the_recipes_leave_by_default_is_as_it_was_when_seeds_began_to_count(tmp_path):
    """An identity does not tell."""
    recipe = Place(tmp_path, tmp_path / "encoders.safetensors").recipe(BY_NAME["F-Spa-LORA"], 0)
    assert (recipe.optimizer.betas, recipe.optimizer.weight_decay) == ((0.9, 0.999), 0.01)
    assert (recipe.optimizer.final_lr, recipe.learn.alpha, recipe.learn.targets) == (None, None, None)
    d = recipe.diffusion
    assert (d.dropout, d.image_temporal, d.noisy_share, d.max_weight, d.scale_end) == (0.1, "identity", 0.0, 1.0, 0.7)


def test_a_run_up_to_a_snapshot_is_the_beginning_of_the_whole_run(tmp_path):
    place = Place(tmp_path, tmp_path / "e.safetensors")
    for arm in ARMS:
        *snapshots, end = place.stops(arm, 3)
        for step in snapshots:
            assert place.recipe(arm, 3, end).differences(place.recipe(arm, 3, step).model_dump_json()) == {}


def test_some_prompts_are_balanced():
    some = scenes(some=True)
    assert len(scenes()) == 96
    assert sorted({(s.colour, s.shape) for s in some}) == sorted({(s.colour, s.shape) for s in scenes()})
    assert [sum(seen(s.colour, s.shape) == which for s in some) for which in (True, False)] == [16, 16]
    assert [sum(s.direction == d for s in some) for d in range(4)] == [8] * 4


# Rows


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

    def happen(*event):
        if deaths and len(events) >= deaths[0]:
            deaths.pop(0)
            raise Killed
        events.append(event)

    class Trainer:
        def __init__(self, recipe, folder, cache):
            self.recipe, self.folder = recipe, folder

        def run(self):
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
    (tmp_path / "gates.json").write_text(json.dumps({"encoders": Runner.fingerprints}))
    place = Place(tmp_path / "runs", tmp_path / "e.safetensors")

    def make(commit="abc"):
        return Runner(place, tmp_path / "rows", (2,), True, commit)

    make.events, make.deaths, make.rows = events, deaths, tmp_path / "rows"
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


def test_seeds_that_count_need_gates_of_their_own_encoders(fake_runner, tmp_path):
    (tmp_path / "gates.json").write_text(json.dumps({"encoders": {"autoencoder": "z", "text": "y"}}))
    with pytest.raises(RecipeError, match=r"gates\.json is of encoders .*'z'.* before the seeds that count"):
        fake_runner().run()
    assert fake_runner.events == []


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


# Distance


def test_the_distance_is_zero_on_average_for_another_draw_and_grows_with_a_shift():
    generator = torch.Generator().manual_seed(0)

    def draw(count: int, shift: float) -> torch.Tensor:
        return torch.randn(count, 16, generator=generator) + shift

    same = [kernel(draw(32, 0), draw(64, 0)) for _ in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 40**0.5
    shifted = [kernel(draw(32, shift), draw(64, 0)) for shift in (0.3, 0.6, 1.2)]
    assert max(same) < shifted[0] < shifted[1] < shifted[2]


# Gates


class Blurring(torch.nn.Module):
    """In place of an autoencoder: pictures come back as the means of blocks of so many pixels."""

    def __init__(self, block: int):
        super().__init__()
        self.block = block

    def encode(self, x):
        return torch.cat([torch.nn.functional.avg_pool2d(x, self.block)] * 2, 1)

    def decode(self, z):
        return torch.nn.functional.interpolate(z, scale_factor=self.block)


def test_the_gates_open_for_a_perfect_autoencoder_and_not_for_a_coarse_one(monkeypatch):
    monkeypatch.setattr(gates, "CLIPS", 5)
    perfect, scale = gates.of_the_world(Blurring(1))
    assert [gate.line() for gate in perfect if not gate.passed] == []
    assert scale.defect(scale.low) == pytest.approx(1)
    assert scale.defect(scale.clean) == pytest.approx(0)
    failed = {gate.name for gate in gates.of_the_world(Blurring(8))[0] if not gate.passed}
    assert "watermark behind the autoencoder, of before" in failed
    assert "judge right on colour, shape and direction: low-quality videos behind the autoencoder" in failed
    assert not any(name.startswith(("direction right", "motion error", "object found")) for name in failed)


# Claims

SCALE = Scale(dict.fromkeys(DEFECTS, 0.0), dict.fromkeys(DEFECTS, 1.0))
# Motion error, defect, watermark, held-out and seen composition, distance: as the paper would have it.
PAPER = {
    "F-base": (0.3, 0.9, 0.9, 0.3, 0.9, 0.0),
    "P-base": (0.3, 0.9, 0.9, 0.3, 0.9, 0.0),
    "P-Spa-LORA": (0.6, 0.2, 0.1, 0.8, 0.9, 0.5),
    "F-Spa-LORA": (0.4, 0.4, 0.4, 0.8, 0.9, 0.5),
    "P-Temp-LORA": (0.7, 0.3, 0.2, 0.5, 0.9, 0.5),
    "F-Temp-LORA": (0.5, 0.8, 0.85, 0.4, 0.9, 0.5),
    "F-Spa-DIR": (0.32, 0.1, 0.05, 0.9, 0.95, 0.9),
    "F-Spa-Temp-DIR": (0.5, 0.1, 0.05, 0.9, 0.95, 0.9),
    "F-Spa-DIR-LAION": (0.32, 0.1, 0.05, 0.5, 0.95, 0.9),
}


def results(table: dict[str, tuple[float, ...]], seed: int) -> claims.Results:
    rng, made = np.random.default_rng(seed), []
    for arm, (motion, defect, watermark, held_out, on_seen, distance) in table.items():
        share = [on_seen if seen(s.colour, s.shape) else held_out for s in scenes()]
        counted = {True: 0, False: 0}
        flags = ""
        for wanted, scene in zip(share, scenes(), strict=True):
            group = seen(scene.colour, scene.shape)
            counted[group] += 1
            flags += str(int(counted[group] * wanted % 1 < wanted))
        columns = {name: [defect + float(rng.normal(0, 0.01))] * 95 + [None] for name in DEFECTS}
        columns["watermark"] = [watermark] * 96
        made.append(
            {
                "arm": arm, "weights": "ema", "fps": 8, "prompts": 96,
                "right": dict.fromkeys(("colour", "shape", "direction", "joint"), flags),
                "motion_error": [motion + float(rng.normal(0, 0.01))] * 96,
                "defects": columns,
                "distance": {"low": distance + float(rng.normal(0, 0.01))},
            }
        )  # fmt: skip
    return claims.Results.of(made, SCALE)


def verdicts(table: dict[str, tuple[float, ...]], seeds: int = 8) -> list[str]:
    return [outcome.verdict for outcome in claims.decide([results(table, seed) for seed in range(seeds)])]


def test_the_papers_results_confirm_all_claims_with_eight_seeds_and_none_with_three():
    assert verdicts(PAPER) == ["confirmed"] * 5
    assert verdicts(PAPER, 3) == ["undecided"] * 5


def test_each_claim_can_be_refuted():
    other = {
        **PAPER,
        "P-Spa-LORA": (0.35, 0.6, 0.5, 0.8, 0.9, 0.5),  # 1a and 2a
        "F-Spa-DIR": (0.6, 0.5, 0.4, 0.4, 0.9, -0.3),  # 3, 4a, 5a
    }
    assert verdicts(other) == ["refuted"] * 5


def test_no_difference_is_undecided_and_not_confirmed():
    """But for a watermark that training theta_S should take away, and does not."""
    same = dict.fromkeys(PAPER, PAPER["F-base"])
    assert verdicts(same) == ["undecided", "refuted", "undecided", "undecided", "undecided"]
    assert verdicts({**same, "F-Spa-DIR": PAPER["F-Spa-DIR"]})[1] == "undecided"


def test_what_a_base_loses_is_a_share_of_what_it_has():
    """P-base stands at 0.6 of 1: what F loses from 0.3, twice over, is a quarter of it, and of P's half."""
    table = {**PAPER, "P-base": (0.6, *PAPER["P-base"][1:]), "P-Spa-LORA": (0.8, *PAPER["P-Spa-LORA"][1:])}
    made = results({**table, "F-Spa-LORA": (0.475, *PAPER["F-Spa-LORA"][1:])}, 0)
    spatial, temporal = (part.of(made) for part in claims.CLAIMS[0].parts)
    assert spatial == pytest.approx(0.5 - 0.25, abs=0.1)
    assert temporal == pytest.approx(0.25 - 0.2857, abs=0.1)
    still = results({**PAPER, "P-base": (1.0, *PAPER["P-base"][1:])}, 0)
    still.rows["P-base"]["motion_error"] = [1.0] * 96
    assert claims.CLAIMS[0].parts[0].of(still) == pytest.approx(-(0.1 / 0.7), abs=0.1)


def test_two_pictures_that_hardly_got_better_are_equal_where_they_are():
    """The share of a small gain would be a large number."""
    table = {**PAPER, "F-Spa-DIR": (0.3, 0.88, *PAPER["F-Spa-DIR"][2:]), "F-Spa-Temp-DIR": (0.3, 0.86, 0.05, 1, 1, 0)}
    made = results(table, 0)
    assert abs(claims.CLAIMS[2].parts[0].of(made)) < 0.25


def test_seen_and_held_out_are_told_apart():
    row = {"prompts": 96, "right": {"joint": "".join(str(int(seen(s.colour, s.shape))) for s in scenes())}}
    assert share_right(row, "joint", held_out=False) == 1
    assert share_right(row, "joint", held_out=True) == 0
    assert share_right(row, "joint") == pytest.approx(32 / 96)


def test_the_gates_of_a_seed_wait_for_both_bases():
    made = [results(PAPER, 0).rows[name] for name in ("F-base", "P-base")]
    assert of_a_seed(made[:1]) == []
    passed = {gate.name: gate.passed for gate in of_a_seed(made)}
    assert len(passed) == 4
    assert passed["F-base: all right, held-out pairs"]
