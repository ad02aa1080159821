"""Would the trainer's tests notice? Wrong lines, one at a time, in a copy of the tree. Writes docs/mutants.md.

Each mutant is a change of one line of the objective, the loop, the partition, the batches or the schedule that a
person could make, and the tests that should fail of it. A mutant that all of them pass has survived. Results are kept
in `.cache/mutants.jsonl` and belong to the mutated file and its tests: interrupted, the same command goes on, and only
what has changed since is tried again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / ".cache" / "mutants.jsonl"
TIME_LIMIT = 3600  # seconds; a mutant that hangs is noticed, too, and a busy machine is not taken for one

BEHAVIOUR, CONSISTENCY, LOOP, START, SKIPPED, OUTPUTS, HISTORY, LORA, ORDER = (
    f"tests/training/test_{name}.py"
    for name in ("behaviour", "consistency", "loop", "start", "skipped", "outputs", "history", "lora", "order")
)
DISTRIBUTED, INITIALISE, PREPARE, REAL_FILES, PARITY = (
    "tests/training/test_distributed.py",
    "tests/training/test_initialise.py",
    "tests/training/test_prepare.py",
    "tests/training/test_real_files.py",
    "tests/vc2/test_parity.py",
)


@dataclass(frozen=True)
class Mutant:
    """`before` stands once in `file`; `tests` are those that are concerned, the likeliest first. `why`: why it may
    survive, where that is known.
    """

    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    why: str = ""


def of(file: str, tests: tuple[str, ...], *changes: tuple[str, ...]) -> list[Mutant]:
    return [Mutant(f"vc2/{file}", change[0], change[1], tests, *change[2:]) for change in changes]


MUTANTS = [
    *of(
        "training/diffusion.py",
        (BEHAVIOUR, LOOP),
        ("batch.fps.to(self.device)", "torch.full_like(batch.fps, 16).to(self.device)"),
        ("if noisy else 0, TIMESTEPS", "if noisy else 0, TIMESTEPS // 2"),
        ("F.mse_loss(eps.float(), noise,", "F.mse_loss(eps.float(), -noise,"),
        ("F.mse_loss(", "F.l1_loss("),
        ("(sigma / signal)", "(signal / sigma)"),
        ("(errors * self._weights(t).to(errors.device)).mean()", "errors.mean()"),
        ("NOISE, batch.step.index, slot)", "NOISE, batch.step.index, 0)"),
        ("NOISE, batch.step.index, slot)", "NOISE, 0, slot)"),
        ('x0.shape[2] == 1 else "full"', 'x0.shape[2] == 1 else "identity"'),
        ("self.encoders.context(batch.captions, batch.text)", "self.encoders.context([''] * len(batch))"),
        ("micro * per_clip", "micro"),
    ),
    *of(
        "training/consistency.py",
        (CONSISTENCY,),
        ("cond + per_frame", "cond - per_frame"),
        ("(start - gap)", "(start + gap)"),
        ("x_own = x * per_frame(scale, x).to(x)", "x_own = x"),
        ("sigma_end * eps", "sigma * eps"),
        ("guidance=guidance).float()", "guidance=None).float()"),
        ("skip * x + out", "out"),
    ),
    *of(
        "training/encoders.py",
        (BEHAVIOUR, PREPARE),
        ("(SCALE_FACTOR * (mean", "(1.0 * (mean"),
        ("(0.5 * log_variance", "(1.0 * log_variance"),
        ("/ 127.5 - 1", "/ 255"),
    ),
    *of(
        "training/loop.py",
        (BEHAVIOUR, LOOP, START, SKIPPED, HISTORY),
        ("self.recipe.optimizer.clip)", "1e9)"),
        ("(loss / len(micro_batches)).backward()", "loss.backward()"),
        ("(step + 1) / config.warmup", "step / config.warmup"),
        ("0.5 * (1 + math.cos", "(1 + math.cos"),
        ("and math.isfinite(norm):", "or math.isfinite(norm):"),
        ("self.optimizer.zero_grad()", "pass"),
        ("self.ema.update(self.network)", "pass"),
        ("self.step * world + rank)", "rank)"),
        ("or self.step == self.recipe.steps)", "or False)"),
    ),
    *of("training/loop.py", (DISTRIBUTED,), ('means.pop("stop") > 0', 'means.pop("stop") > 1')),
    *of("training/history.py", (HISTORY,), ('["held_out"]["average"]', '["held_out"]["live"]')),
    *of(
        "training/ema.py",
        (LOOP,),
        ("(1 + self.step) / (10 + self.step)", "1.0"),
        ("live, 1 - decay)", "live, decay)"),
    ),
    *of(
        "training/build.py",
        (BEHAVIOUR,),
        ("torch.optim.AdamW(learning, config.lr, config.betas,", "torch.optim.AdamW(learning, config.lr,"),
        ("weight_decay=config.weight_decay, fused", "weight_decay=0.0, fused"),
    ),
    *of(
        "training/partition.py",
        (INITIALISE, LOOP, LORA),
        ('== (part == "temporal")', '!= (part == "temporal")'),
        ('["init_attn.", "fps_embedding."]', '["init_attn."]'),
        ('image_temporal != "full")', 'image_temporal == "full")'),
        ("child.eval()", "pass"),
        ("no_queries=recipe.image_only", "no_queries=False"),
    ),
    *of(
        "training/lora.py",
        (LORA,),
        ("else alpha / rank", "else rank / alpha"),
        ("alpha is None else alpha))", "True else alpha))"),
    ),
    *of(
        "training/data/plan.py",
        (ORDER, LOOP),
        ("rng.random() < recipe.image_share", "rng.random() > recipe.image_share"),
        ("(1 if recipe.image_only else frames)", "1"),
        ("positions[bucket] += count", "positions[bucket] += 1"),
    ),
    *of(
        "training/data/batches.py",
        (ORDER, LOOP, BEHAVIOUR),
        ("range(self.rank * share, (self.rank + 1) * share)", "range(share)"),
        ("captions=self.captions[k : k + size]", "captions=self.captions[:size]"),
    ),
    *of(
        "training/data/stream.py",
        (LOOP, ORDER),
        ("rng.random() < recipe.data.caption_dropout", "rng.random() > recipe.data.caption_dropout"),
        ("rng.integers(low, high + 1)", "rng.integers(low, high)"),
    ),
    *of(
        "training/sources/source.py",
        (REAL_FILES, PREPARE),
        ("stride = low + int(self.uniform[0] * (high - low + 1))", "stride = low"),
    ),
    *of(
        "training/validate.py",
        (BEHAVIOUR, OUTPUTS),
        ("int(quantiles[q] * TIMESTEPS))", "500)"),
        ("context[1:], fps, settings.guidance)", "context[1:], fps, 1.0)"),
        ("[float(settings.fps)]", "[16.0]"),
    ),
    *of(
        "sampling/schedule.py",
        (PARITY, LOOP),
        ("0.00085, 0.012", "0.00085, 0.02"),
        ("abar.sqrt() * scale, (1", "abar.sqrt(), (1"),
        ("(1 - abar).sqrt()\n        return per", "(1 - abar)\n        return per"),
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="those whose file has this in its path; writes no report")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "mutants.md")
    args = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if args.only in mutant.file]
    known = read_results()
    sound = hashlib.sha256("\0".join(key(mutant) or "" for mutant in mutants).encode()).hexdigest()[:16]
    if sound not in known:
        print("the tests themselves, on the tree as it is", file=sys.stderr)
        keep(known, sound, fate(None, tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))))
    if known[sound] != "survived":
        raise SystemExit(f"{known[sound]} fails without any mutant; mend it first, then delete {RESULTS}")
    for mutant in tqdm(mutants, unit="mutant"):
        name = key(mutant)
        if name is not None and name not in known:
            keep(known, name, fate(mutant, mutant.tests))
    fates = [known[name] if (name := key(mutant)) is not None else "stale" for mutant in mutants]
    lines = report(mutants, fates)
    print("\n".join(lines))
    if not args.only:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def read_results() -> dict[str, str]:
    if not RESULTS.is_file():
        return {}
    # A line that was cut short has no end.
    lines = RESULTS.read_text(encoding="utf-8").split("\n")[:-1]
    return {line["mutant"]: line["fate"] for line in map(json.loads, lines)}


def keep(known: dict[str, str], name: str, outcome: str) -> None:
    known[name] = outcome
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps({"mutant": name, "fate": outcome}) + "\n")


def key(mutant: Mutant) -> str | None:
    """Of the mutated file and its tests; None where the line is there no longer, or more than once."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        return None
    texts = [text.replace(mutant.before, mutant.after), *((ROOT / test).read_text("utf-8") for test in mutant.tests)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def fate(mutant: Mutant | None, tests: tuple[str, ...]) -> str:
    """The first test that fails of it (None: of the tree as it is), "survived", or "hung"."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for file in filter(None, files.split("\0")):
            if not file.startswith(("web/", "workflows/", "locales/", "docs/")) and (ROOT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, copy / file)
        if mutant is not None:
            path = copy / mutant.file
            path.write_text(path.read_text(encoding="utf-8").replace(mutant.before, mutant.after), encoding="utf-8")
        return outcome(copy, tests)


def outcome(tree: Path, tests: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", *tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    try:
        run = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return "hung"
    if run.returncode == 0:
        return "survived"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode != 1 or not failed:
        raise RuntimeError(f"pytest ended with {run.returncode}: {run.stdout[-1000:]}{run.stderr[-1000:]}")
    return failed[0].split("::")[-1].split(" - ")[0].split("[")[0]


def report(mutants: list[Mutant], fates: list[str]) -> list[str]:
    tried = [outcome for outcome in fates if outcome != "stale"]
    survived = tried.count("survived")
    lines = [
        "# Wrong lines that the trainer's tests notice",
        "",
        f"Made by `python -m bench.mutants` ({platform.machine()}, Python {platform.python_version()}): each of"
        f" {len(tried)} lines was",
        "made wrong in a copy of the tree, and the tests that are concerned were run until one failed.",
        f"**{survived} of {len(tried)} survived ({survived / max(1, len(tried)):.0%}).**",
        "",
        "| file | line | made | noticed by |",
        "| --- | --- | --- | --- |",
    ]
    for mutant, outcome in zip(mutants, fates, strict=True):
        noticed = f"**survived** {mutant.why}".strip() if outcome == "survived" else outcome
        if outcome == "stale":
            noticed = "not tried: the line is there no longer"
        before, after = (" ".join(text.split()).replace("|", "\\|") for text in (mutant.before, mutant.after))
        lines.append(f"| {mutant.file.removeprefix('vc2/')} | `{before}` | `{after}` | {noticed} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
