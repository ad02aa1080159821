"""docs/performance.md and its plots, from what lies in docs/performance/*.json: nothing is measured here."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from bench import counted_report, few_steps_report, machine, plots
from bench.cases import ON_A_CPU, ON_A_GPU, WORKLOADS, Case
from bench.tables import NOT_MEASURED, Json, machines, rows_of, seconds, table, wrapped
from bench.workloads import WIDTHS

FORWARD_GOAL, CLIP_GOAL = 0.75, 1.5  # on a CPU: of the official code's time, and times as fast as 0.2.0
# What `make bench-gpu` measures. At 16 frames of 512x320 where no size is said.
GOALS = {
    "guided step, bf16, compiled": "64 ms on an H100",
    "guided step, bf16": "",
    "prompt to frames, 50 steps, compiled": "4 s on an H100",
    "T2V-Turbo's four steps to frames, compiled": "0.6 s on an H100",
    "peak of prompt to frames, weights included": "8 GB",
    "peak of a guided step against PEAK": "at most 1.0",
    "ComfyUI's overhead for a step": "3 %",
    "peak in ComfyUI with --lowvram": "4 GB",
    "kernel of attention over time": "",
    "MFU of F-base": "45 %",
    "MFU of F-Spa-DIR": "45 %",
    "MFU of F-Spa-LORA": "45 %",
}


def _ratio(row: Json) -> float | None:
    return machine.ratio(row["seconds"], "ours", "official") if "official" in row["seconds"] else None


def _range(some: list[float], others: list[float]) -> str:
    each = [a / b for a, b in zip(some, others, strict=True)]
    return f"{min(each):.2f} to {max(each):.2f}"


def _in_order(rows: list[Json]) -> list[Json]:
    """As `WORKLOADS` go, the full width first, in float32 first, short clips first."""

    def place(row: Json) -> tuple:
        case = Case(**row["case"])
        width = list(WIDTHS).index(case.network)
        return WORKLOADS.index(case.workload), width, case.compiled, case.precision != "fp32", case.width, case.frames

    return sorted(rows, key=place)


def compared(rows: list[Json], wanted: Iterable[Case] = ()) -> str:
    """Ours beside the official code; the median of the rounds. What is `wanted` and not there says so."""
    missing = [{"case": asdict(case)} for case in wanted if asdict(case) not in [row["case"] for row in rows]]
    lines = []
    for row in _in_order([*rows, *missing]):
        case = Case(**row["case"])
        what = [case.short, case.network, case.clip, case.precision]
        if "seconds" not in row:
            lines.append([*what, NOT_MEASURED, NOT_MEASURED, "", "", "", "", ""])
            continue
        ratio, official = _ratio(row), row["seconds"].get("official")
        lines.append(
            [
                *what,
                seconds(statistics.median(official) if official else None),
                seconds(statistics.median(row["seconds"]["ours"])),
                f"{ratio:.2f}x" if ratio else "",
                _range(row["seconds"]["ours"], official) if official else "",
                f"{machine.ratio(row['seconds'], 'products', 'ours'):.2f}x" if "products" in row["seconds"] else "",
                f"{row['difference']:.1e}" if row["difference"] is not None else "",
                f"{row['peak'] / 2**20:.0f} MiB" if row["peak"] else "",
            ]
        )
    head = "what | width | frames | precision | official | ours | | rounds | products | apart | peak beyond weights"
    if not any(line[-1] for line in lines):  # a CPU's memory is counted, not measured
        head, lines = head.rpartition(" | ")[0], [line[:-1] for line in lines]
    return table(head, lines)


def narrower(rows: list[Json]) -> str:
    """Which of the two is nearer to what float32 gives, where neither computes in it."""
    each = [
        f"{case.short}, {case.network} width, {found['ours']:.1e} and {found['official']:.1e}"
        for row in _in_order(rows)
        for case in [Case(**row["case"])]
        if (found := row.get("from_fp32")) and "official" in found
    ]
    if not each:
        return ""
    text = f"In bf16, ours and the official code are as far from what fp32 gives as this: {'; '.join(each)}."
    return wrapped(text) + "\n\n"


def _without_onednn(ratio: float, ways: list[Json]) -> str:
    """What the share would be without what needs AVX-512."""
    for row in ways:
        if row["what"] == "Linears by MKL, at full width":
            share = ratio * machine.ratio(row["seconds"], "changed", "ours")
            missed = ", and missed" if share > FORWARD_GOAL else ""
            return f" With Linears by MKL, as torch has them, it would be some {share:.2f}x{missed}."
    return ""


def forward_goal(rows: list[Json], ways: list[Json]) -> str:
    """Whether a forward pass at full width reached its goal, and if not, what stands in the way; `ways` are the rows of
    what each change gave.
    """
    for row in rows:
        ratio = _ratio(row)
        if not _is_forward_goal(row) or not ratio:
            continue
        if ratio <= FORWARD_GOAL:
            return wrapped(
                f"The goal for a forward pass at full width in fp32, {FORWARD_GOAL:g}x of the official code, is reached"
                f" on this processor: {ratio:.2f}x.{_without_onednn(ratio, ways)} What gave how much stands"
                " [below](#what-each-change-gave).",
            )
        share = machine.ratio(row["seconds"], "products", "ours")
        return (
            f"The goal for a forward pass at full width, {FORWARD_GOAL:g}x of the official code, is **not reached**:"
            f" {ratio:.2f}x.\nPlain products of as many operations take {ratio * share:.2f}x of the official code's"
            " time, and convolutions are at most a\nfew percent faster, so in fp32 only fewer operations would reach"
            " it. Winograd's convolutions, of a quarter\nto a half of the products, were no faster.\nWhat was tried"
            " stands [below](#what-each-change-gave).\n"
        )
    return ""


def goals(rows: list[Json]) -> str:
    lines = [[row["what"], row["goal"], row.get("found", NOT_MEASURED), row.get("note", "")] for row in rows]
    return table("what | goal | found | ", lines)


def changes(rows: list[Json]) -> str:
    ratios = {row["what"]: machine.ratio(row["seconds"], "changed", "ours") for row in rows}
    lines = []
    for row in sorted(rows, key=lambda row: -ratios[row["what"]]):
        lines.append(
            [
                row["what"],
                f"{ratios[row['what']]:.2f}x",
                _range(row["seconds"]["changed"], row["seconds"]["ours"]),
                f"{row['difference']:.0e}",
                *(f"{row['counted'][name]:,}" if row["counted"] else "" for name in ("peak", "operations")),
                row["note"],
            ]
        )
    return table("the UNet with this instead | time | rounds | apart | peak (MiB) | operations | ", lines)


def let_go(rows: list[Json], out: Path) -> str:
    """What neither a way of computing nor a slice took away of the peak."""
    whole = next(
        (row["counted"]["peak"] for row in rows if row["what"] == "GEGLU, SiLU and feed-forward like this"), None
    )
    older = next((row["peak"] / 2**20 for row in rows_of(out, "counted") if row["version"] == "0.2.0"), None)
    if not whole or not older:
        return ""
    return f"""Not in this table: what is let go of once it has been read (a block's input, queries, keys and values,
sums before and after), which with what both prompts share took the peak from {older:,.0f} to {whole:,} MiB.
"""


def loading(rows: list[Json]) -> str:
    lines = []
    for row in rows:
        for stage, cost in row["stages"].items():
            lines.append([row["what"], stage, *_costs(cost), ""])
        whole = {kind: statistics.median(each[kind] for each in row["rounds"]) for kind in row["rounds"][0]}
        wall = [each["seconds"] for each in row["rounds"]]
        lines.append([row["what"], "**all**", *_costs(whole), f"{min(wall):.1f} to {max(wall):.1f} s"])
    return table("version | what | by the clock | programs | system | pages | range", lines)


def _costs(cost: dict[str, float]) -> list[str]:
    return [*(f"{cost[kind]:.1f} s" for kind in ("seconds", "programs", "system")), f"{cost['pages']:,.0f}"]


def in_short(out: Path) -> str:
    """What somebody with a card and an evening wants to know; nothing where nothing was counted."""
    by = {(row["version"], row["what"]): row for row in rows_of(out, "counted")}
    step, older, large, decoding = (
        by.get(key)
        for key in (
            ("now", "guided step, 512x320"),
            ("0.2.0", "guided step, 512x320"),
            ("now", "guided step, 1024x576"),
            ("now", "decoding, 512x320"),
        )
    )
    if not (step and older and large and decoding):
        return ""
    peak, before, at_large = (f"{row['peak'] / 2**20:,.0f}" for row in (step, older, large))
    whole = (50 * step["flops"] + decoding["flops"]) / 1e15
    ratio = next((r for row in rows_of(out, "cpu") if _is_forward_goal(row) and (r := _ratio(row))), None)
    cpu = f"On a CPU a pass at full width takes {ratio:.2f}x of the official code's time, in fp32. " if ratio else ""
    gpu = "" if rows_of(out, "goals") else "On a GPU nothing is measured yet. "
    arithmetic = wrapped(
        f"- **Time.** {cpu}{gpu}A clip of 16 frames at 512x320 with 50 steps is {whole:.1f} PFLOP, which is"
        f" {1000 * whole / 30:.0f} s for a card that sustains 30 TFLOP/s: arithmetic and no measurement. [Fewer"
        " passes](#fewer-passes) says what fewer steps cost, on the miniature.",
        indent="  ",
    )
    return f"""- **Memory**, counted: beyond the weights (2.8 GB in half precision) a step of 16 frames, with its
  negative prompt, takes {peak} MiB at 512x320, where it took {before}, and {at_large} MiB at 1024x576.
  [README](../README.md#which-card) says what fits on which card.
{arithmetic}
"""


def _is_forward_goal(row: Json) -> bool:
    case = Case(**row["case"])
    return (case.workload, case.network, case.precision, case.compiled) == ("UNet forward", "full", "fp32", False)


def write(out: Path) -> None:
    cpu, gpu = rows_of(out, "cpu"), rows_of(out, "gpu")
    parts = [
        """# How fast, and how much memory

Each part names its command, and what was measured also its machine, versions and commit. The numbers lie in
[docs/performance](performance); what was not measured says so.
""",
        in_short(out),
    ]
    if found := rows_of(out, "counted"):
        parts.append(counted_report.section(found))
    if cpu:
        fewest = min(len(row["seconds"]["ours"]) for row in cpu)
        parts.append(f"""## On a CPU

By `VIDEOCRAFTER_PATH=... make bench`: ours beside the official code, in turns in one process on the same weights and
inputs; processor time, and ours as a share of the official code's: of times and shares the median of {fewest} rounds or
more, and the rounds' range. *Width* is the UNet's: full, 320 channels, or a fifth, 64; the autoencoder is whole, the
text encoder left out. Weights are random. *Products*: what as many floating-point operations as
ours take as plain products of large matrices, as a share of our time; about as fast as this machine gets (convolutions
can be faster). Where it says compiled, ours is, which is slower than not compiled here. *Apart* is the relative RMS of
the two results; frames are compared as bytes, of which one now and then rounds to its neighbour; a guided step has the
difference between its two passes 12 times, and so their roundings, which is much in bf16. In bf16 the official code
runs under autocast, ours has bf16 weights. The official code runs as it does without xformers, which CPUs lack: it
keeps whole matrices of attention, and falls behind where frames are large. On a GPU, with xformers, it would not.

{compared(cpu, ON_A_CPU)}

{narrower(cpu)}{forward_goal(cpu, rows_of(out, "changes"))}

{machines(cpu)}

![ours as a share of the official code's time](performance/cpu.svg)
""")
        shares = {
            f"{case.short}, {case.network}, {case.clip}, {case.precision}": ratio
            for row in _in_order(cpu)
            for case in [Case(**row["case"])]
            if (ratio := _ratio(row))
        }
        if shares:
            title = "On a CPU, by width, frames and precision: ours as a share of the official code's time"
            (out / "performance" / "cpu.svg").write_text(plots.bars(title, shares, "official"), encoding="utf-8")
    for row in rows_of(out, "against"):
        times, faster = row["seconds"], machine.ratio(row["seconds"], "older", "now")
        reached = f" The goal, {CLIP_GOAL:g} times as fast, is reached."
        if faster < CLIP_GOAL:
            share = min(times["products"]) / min(times["now"])
            reached = f""" The goal, {CLIP_GOAL:g} times as fast, is **not
reached**. Plain products of as many operations take {share:.2f}x of our time; the rest are attention's kernels, norms,
activations, sums and copies."""
        parts.append(f"""The demo's clip with the miniature (16 frames of 64x64, 25 steps), sampling alone, in turns
with {row["version"]} (`make bench-against`): {seconds(statistics.median(times["older"]))} there,
{seconds(statistics.median(times["now"]))} here; the ratios of {len(times["now"])} rounds: {faster:.2f} (median),
{_range(times["older"], times["now"])}.{reached}

{machines([row])}
""")
    parts.append("## On a GPU\n")
    measured = {row["what"]: row for row in rows_of(out, "goals")}
    rows = [{"what": what, "goal": goal} | measured.get(what, {}) for what, goal in GOALS.items()]
    where = "\n" + machines(list(measured.values())) + "\n" if measured else ""
    parts.append(f"""`make bench-gpu` measures these in one call of under eight minutes, once `make` has installed all.
What each takes is estimated for an H100; a slower card leaves out the last ones, and a small one says of which it has
not the memory. *MFU* is the share of a card's TFLOP/s that a training step uses, by recipe.

{goals(rows)}
{where}""")
    where = machines(gpu) + "\n\n" if gpu else ""
    parts.append(
        f"Beside the official code, by `make bench` on a GPU:\n\n{compared(gpu, ON_A_GPU)}\n\n{narrower(gpu)}{where}"
    )
    if found := rows_of(out, "changes"):
        as_it_is = "".join(
            f": {row['peak'] / 2**20:,.0f} MiB and {sum(row['operations'].values()):,} as it is"
            for row in rows_of(out, "counted")
            if (row["version"], row["what"]) == ("now", "guided step, 512x320")
        )
        parts.append(f"""## What each change gave

By `make bench-changes`: a forward pass of the UNet with one thing done in another way, in turns with ours as it
is, processor time. Above 1.00x ours is faster; at or below it the other way would be as good or better on this machine;
where its rounds lie on both sides of 1, no difference is shown. One prompt, 16 frames of 128x128, a fifth of the width
and fp32 where nothing else is said. *Peak* and *operations* are counted, of a guided step at 512x320 and full
width{as_it_is}; empty where counting cannot look inside, and beside such a step.

{changes(found)}

{let_go(found, out)}

{machines(found)}
""")
    if found := rows_of(out, "loading"):
        size, rounds = found[0]["bytes"] / 2**30, len(found[0]["rounds"])
        parts.append(f"""## Loading a checkpoint

By `make bench-loading`, a file of the official names and shapes ({size:.2f} GiB) into ComfyUI's MODEL, CLIP and VAE, in
turns with 0.2.0: in processes of their own, medians of {rounds} rounds, and the range of the whole. *Programs* and
*system*: processor time of either; *pages*: how often the system had to hand out memory.

{loading(found)}

Now every number is looked at, to see that it is finite, which 0.2.0 left undone. The rest is mostly the copy into
memory of ComfyUI's own, and of that mostly the system's part, to find, empty and hand out pages. It differs by a factor
of five from one hour to the next on this virtual machine (10 s were once reported, and 6.8); within the rounds above it
hardly does. A copy there must be: a file that is overwritten must not change a model that is loaded. Huge pages
(`THP_MEM_ALLOC_ENABLE=1` before ComfyUI starts) are fewer, and took longer to find. Under dynamic VRAM (ComfyUI 0.28
and later, on GPUs) nothing is copied: weights stay in the file until they are used.

{machines(found)}
""")
    if found := rows_of(out, "few_steps"):
        parts.append(few_steps_report.section(found, out / "performance"))
    (out / "performance.md").write_text("\n".join(parts), encoding="utf-8")
