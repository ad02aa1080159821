"""The page's part on fewer passes, from the rows of `bench.few_steps`."""

from __future__ import annotations

from pathlib import Path

from bench import plots
from bench.tables import Json, machines, table, wrapped
from vc2.evaluation.rate.metrics import wilson

CHANCE = 2  # clips
ALT = "pictures' error, clips that are right and latents' error, against passes"


def rows_table(rows: list[Json]) -> str:
    lines = [
        [
            row["what"],
            f"{row['cost']:.1f}",
            "" if row["error"] is None else f"{row['error']:.3f}",
            f"{row['picture']:.1f}",
            f"{row['right']:.0%} ({' to '.join(f'{100 * end:.0f}' for end in wilson(row['right'], row['count']))})",
            f"{row['count']} clips",
        ]
        for row in rows
    ]
    return table("how | passes | error | picture | right by the judge | ", lines)


def named(row: Json) -> str:
    """Without what all rows beside it have."""
    return row["what"].removesuffix(f", {row['frames']} frames")


def plot(rows: list[Json]) -> str:
    def lines(column: str, scale: float = 1.0) -> dict[str, plots.Line]:
        found: dict[str, list[tuple[float, float, str]]] = {}
        for row in rows:
            name = f"{row['kind']}, {'threshold' if 'threshold' in row['what'] else 'steps'}"
            if row[column] or column == "right":  # all steps have no error, and a logarithm no place for it
                found.setdefault(name, []).append((row["cost"], scale * row[column], row["label"]))
        return dict(found)

    return plots.panels(
        f"What fewer passes cost the miniature's clips of {rows[0]['frames']} frames",
        "passes of the network for a clip",
        [
            plots.Panel("Pictures' error, levels of 255: less is better", lines("picture"), log=True),
            plots.Panel("Right by the judge, % of clips: more is better", lines("right", 100)),
            plots.Panel("Latents' error, share of all steps' latents: less is better", lines("error"), log=True),
        ],
    )


def choice(rows: list[Json]) -> str:
    """What to choose among clips of one length; nothing where all steps were not measured. Some clips fewer than all
    steps have right, `CHANCE`, are chance.
    """
    every = next((row for row in rows if row["error"] == 0), None)
    if every is None:
        return ""
    as_right = [row for row in rows if row["right"] >= every["right"] - (CHANCE + 0.5) / every["count"]]

    def cheapest(further: float) -> list[Json]:
        """The row with the fewest passes of each kind that has one; the fewest of all first."""
        near = [row for row in as_right if row["picture"] <= (1 + further) * every["picture"]]
        kinds = {row["kind"]: row for row in sorted(near, key=lambda row: -row["cost"])}
        return sorted(kinds.values(), key=lambda row: row["cost"])

    def listed(some: list[Json], column: str = "cost", form: str = ".1f") -> str:
        return "; ".join(f"{named(row).removesuffix(', 25 steps')} ({row[column]:{form}})" for row in some) or "none"

    def short_of_it(chosen: Json) -> str:
        """Of those with fewer passes yet, and as many clips right, the one whose pictures are the nearest."""
        fewer = [row for row in as_right if row["cost"] < chosen["cost"] - 0.05]
        if not fewer:
            return ""
        nearest = min(fewer, key=lambda row: row["picture"])
        return (
            f" With fewer passes yet: {named(nearest)} ({nearest['cost']:.1f} passes), whose pictures are"
            f" {nearest['picture'] / every['picture'] - 1:.0%} further off."
        )

    draft = cheapest(0.25)
    plain = next(row for row in draft if row["kind"] != "T2V-Turbo")
    chosen = [draft[0]] if plain is draft[0] else [draft[0], plain]
    return wrapped(
        f"For a draft of {every['frames']} frames choose "
        + " or, without its LoRA, ".join(f"**{named(row)}** ({row['cost']:.1f} passes)" for row in chosen)
        + f": the fewest passes with which the judge sees at most {CHANCE} clips fewer right than with all steps"
        f" ({every['right']:.0%}) and pictures are at most a quarter further off. The other ways take for that:"
        f" {listed([row for row in draft if row not in chosen])}. For pictures at most a tenth further off:"
        f" {listed(cheapest(0.1))}.{short_of_it(draft[0])} The judge sees more than {CHANCE} clips fewer right, one"
        f" clip being {1 / every['count']:.0%}, with:"
        f" {listed([row for row in rows if row not in as_right], 'right', '.0%')}.",
    )


def against_fewer_steps(rows: list[Json]) -> str:
    """What a cache gives beyond plain DDIM with no more passes."""
    plain = [row for row in rows if row["kind"] == "DDIM"]
    caches = [row for row in rows if "threshold" in row["what"]]
    if not plain or not caches:
        return ""

    def is_no_better(row: Json) -> bool:
        return any(
            other["cost"] <= row["cost"]
            and other["error"] <= row["error"]
            and other["picture"] <= row["picture"]
            and other["right"] >= row["right"]
            for other in plain
        )

    said = []
    for kind in dict.fromkeys(row["kind"] for row in caches):
        of = [row for row in caches if row["kind"] == kind]
        said.append(f"{kind} at {sum(map(is_no_better, of))} of {len(of)} thresholds")
    every = max(plain, key=lambda row: row["cost"])
    nearer = [row for row in caches if row["picture"] < every["picture"]]
    text = (
        "Plain DDIM with no more passes is as good or better in latents' error, pictures and clips right than"
        f" {' and '.join(said)}."
    )
    if nearer:
        listed = "; ".join(f"{row['kind']}, threshold {row['label']} ({row['picture']:.1f})" for row in nearer)
        text += (
            f" Pictures nearer to a drawn one than with all steps ({every['picture']:.1f}) have: {listed}; it is not"
            " what all steps show, so no fidelity to these."
        )
    return wrapped(text)


def section(found: list[Json], folder: Path) -> str:
    """The part in Markdown; its plot goes into the folder."""
    found.sort(key=lambda row: (row["frames"], row["kind"], -row["cost"]))
    lengths = dict.fromkeys(row["frames"] for row in found)
    parts = []
    for frames in lengths:
        rows = [row for row in found if row["frames"] == frames]
        name = f"few_steps_{frames}.svg"
        (folder / name).write_text(plot(rows), encoding="utf-8")
        parts += [choice(rows), against_fewer_steps(rows), f"![{ALT}, {frames} frames](performance/{name})"]
    said = "\n\n".join(filter(None, parts))
    return f"""## Fewer passes

By `make bench-few-steps`, with the miniature's clips of 8 and of 16 frames: EasyCache and LazyCache of ComfyUI, and
fewer DDIM steps. *Passes*: how often the UNet ran for a clip (prompt and negative prompt count as one). *Error*: RMS of
the latents against those of all steps from the same noise, as a share of these. *Picture*: how far frames are from the
nearest that could be drawn with the prompt's colour and shape, RMS in levels of 0..255. *Right*: the share of clips of
which the rule-based judge sees colour, shape and direction as the prompt has them, and its 95 % interval (Wilson's): a
difference of one or two clips can be chance.

None of it was measured at full size, where other thresholds and steps may do: both caches look at every eighth row and
column of the latents, of which the miniature's 8x8 have one.

T2V-Turbo's way, for which the miniature was distilled (recipe `tiny/turbo`; its own weights could not be had), has no
negative prompt, so that its passes count half, and draws noise at every step, so that it has no error.

{said}

{rows_table(found)}

{machines(found)}
"""
