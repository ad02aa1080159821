"""docs/performance.md and its plots, from what lies in docs/performance/*.json: nothing is measured here."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from bench import few_steps_report, machine, plots
from bench.cases import ON_A_CPU, ON_A_GPU, WORKLOADS, Case
from bench.tables import NOT_MEASURED, Json, machines, rows_of, seconds, table
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


def _in_order(rows: list[Json]) -> list[Json]:
    """As `WORKLOADS` go, the full width first, in float32 first, short clips first."""

    def place(row: Json) -> tuple:
        case = Case(**row["case"])
        width = list(WIDTHS).index(case.network)
        return WORKLOADS.index(case.workload), width, case.compiled, case.precision != "fp32", case.width, case.frames

    return sorted(rows, key=place)


def compared(rows: list[Json], wanted: Iterable[Case] = ()) -> str:
    """Ours beside the official code; the least of the rounds. What is `wanted` and not there says so."""
    missing = [{"case": asdict(case)} for case in wanted if asdict(case) not in [row["case"] for row in rows]]
    lines = []
    for row in _in_order([*rows, *missing]):
        case = Case(**row["case"])
        what = [case.short, case.network, case.clip, case.precision]
        if "seconds" not in row:
            lines.append([*what, NOT_MEASURED, NOT_MEASURED, "", "", "", ""])
            continue
        ratio, official = _ratio(row), row["seconds"].get("official")
        lines.append(
            [
                *what,
                seconds(min(official) if official else None),
                seconds(min(row["seconds"]["ours"])),
                f"{ratio:.2f}x" if ratio else "",
                f"{machine.ratio(row['seconds'], 'products', 'ours'):.2f}x" if "products" in row["seconds"] else "",
                f"{row['difference']:.1e}" if row["difference"] is not None else "",
                f"{row['peak'] / 2**20:.0f} MiB" if row["peak"] else "",
            ]
        )
    head = "what | width | frames | precision | official | ours | | products | apart | peak beyond weights"
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
    return textwrap.fill(text, width=120, break_on_hyphens=False) + "\n\n"


def forward_goal(rows: list[Json]) -> str:
    """Whether a forward pass at full width reached its goal, and if not, what stands in the way."""
    for row in rows:
        case, ratio = row["case"], _ratio(row)
        if (case["workload"], case["network"]) != ("UNet forward", "full") or not ratio:
            continue
        if ratio <= FORWARD_GOAL:
            return (
                f"The goal for a forward pass at full width, {FORWARD_GOAL:g}x of the official code, is reached on this"
                f" processor: {ratio:.2f}x.\nWhat gave how much stands [below](#what-each-change-gave). Where a line of"
                " that table needs AVX-512 and a processor has\nnone, its share is not to be had.\n"
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


def counted(rows: list[Json]) -> str:
    """A column for each of what is counted, with each version's number."""
    names = sorted({row["version"] for row in rows})  # digits before "now"
    by = {(row["version"], row["what"]): row for row in rows}
    columns = list(dict.fromkeys(row["what"] for row in rows))

    def line(title: str, number: Callable[[Json], float], form: str = ",.0f") -> list[str]:
        cells = ([f"{number(by[name, what]):{form}}" for name in names] for what in columns)
        return [title, *(" → ".join(cell) if len(set(cell)) > 1 else cell[0] for cell in cells)]

    def of(column: str, kinds: Iterable[str]) -> Callable[[Json], float]:
        return lambda row: sum(row[column].get(kind, 0) for kind in kinds)

    lines = [
        line("peak (MiB)", lambda row: row["peak"] / 2**20),
        line("computed (TFLOP)", lambda row: row["flops"] / 1e12),
        line("moved (GB)", lambda row: sum(row["moved"].values()) / 1e9),
    ]
    for kind in MOVED:
        moved = of("moved", KINDS[kind])
        lines.append(line(f"moved by {kind} (GB)", lambda row, moved=moved: moved(row) / 1e9, ".1f"))  # type: ignore[misc]
    lines += [line(kind, of("operations", KINDS[kind])) for kind in KINDS]
    lines.append(line("operations, all", lambda row: sum(row["operations"].values())))
    return table(f" | {' | '.join(columns)}", lines)


def longer(rows: list[Json]) -> str:
    """What the counted peaks mean for the length of clips."""
    names = sorted({row["version"] for row in rows})
    peaks = {row["version"]: row["peak"] for row in rows if "FreeNoise" in row["what"]}
    older, now = (peaks[name] / 64 / 2**20 for name in (names[0], "now"))
    return (
        f"Under FreeNoise a frame of 512x320 takes {older:.0f} MiB of activations in {names[0]} and {now:.0f} MiB now,"
        f" so a GB holds {older / now:.1f} times as many."
    )


# Operations by what they are to a GPU: each is a kernel of its own, unless compiled.
KINDS = {
    "copies": ("clone", "_to_copy", "copy_", "cat", "repeat"),
    "sums": ("add", "add_", "addcmul_"),
    "pointwise": ("mul", "mul_", "gelu", "gelu_", "silu", "silu_"),
    "norms": ("native_group_norm", "native_layer_norm"),
    "convolutions": ("convolution",),
    "matrix products": ("mm", "addmm", "bmm"),
}
MOVED = ("copies", "sums")  # of these, bytes too: how many there are depends on how large a slice is


def goals(rows: list[Json]) -> str:
    lines = [[row["what"], row["goal"], row.get("found", NOT_MEASURED), row.get("note", "")] for row in rows]
    return table("what | goal | found | ", lines)


def changes(rows: list[Json]) -> str:
    ratios = {row["what"]: machine.ratio(row["seconds"], "changed", "ours") for row in rows}
    lines = []
    for row in sorted(rows, key=lambda row: -ratios[row["what"]]):
        each = [theirs / ours for ours, theirs in zip(row["seconds"]["ours"], row["seconds"]["changed"], strict=True)]
        lines.append(
            [
                row["what"],
                f"{ratios[row['what']]:.2f}x",
                f"{min(each):.2f} to {max(each):.2f}",
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
    return f"""what is let go of once it has been read (a block's input, queries, keys and values,
sums before and after) and what both prompts share, which took the peak from {older:,.0f} to {whole:,} MiB;
"""


def write(out: Path) -> None:
    cpu, gpu = rows_of(out, "cpu"), rows_of(out, "gpu")
    parts = [
        """# How fast, and how much memory

Each part names the command that measures it, and on what and by which commit it was measured. The numbers lie in
[docs/performance](performance); what was not measured says so.
""",
    ]
    if found := rows_of(out, "counted"):
        parts.append(f"""## Counted

By `python -m bench.counted`, operation by operation on torch's meta device, so the same on every machine: in bf16, the
UNet's attention in one fused kernel, 16 frames of 512x320 where nothing else is said. Of a guided step prompt and
negative prompt are one batch; of a training step, over one clip, the gradients of all weights are computed, without
gradient checkpointing, in bf16 throughout (autocast, which the trainer uses, keeps 30.6 GB of such a clip:
[training](training.md#at-real-sizes)). *Peak* is beyond the weights, gradients included; *moved* what operations read
and wrote. *Copies* change a layout or join tensors, *sums* are mostly residual, *pointwise* are activations and
products by element. *0.2.0 → now*; one number where both are the same.

{counted(found)}

{longer(found)}

**A bound.** ComfyUI reserves memory before a pass, and is told a bound of the peak for that: `PEAK` bytes for each byte
of one channel of the latents, which is what a pass takes where prompt and negative prompt share nothing (*Sharing*,
below), and a quarter more. 0.2.0 told it a guess of 2.4 times as much. Small passes (a single frame, or latents no
larger than those of 16 frames of 448x288) can take up to 64 MiB more than `PEAK`, and a single frame of 1920x1088, of
which nothing is sliced, 128 MiB.

**Where the peak went.** A tensor is let go of as soon as nothing reads it any more, sums and activations go where an
operand was, and without gradients the feed-forward goes a slice of the batch after the other (and FreeNoise's
attention in halves), each with norms, products and sums of its own, which is why there are more of these; a slice is
meant to keep a GPU busy (not measured). What hardly became less is what sums move: each adds what a layer of the host
computed, behind whatever the host did to it (LoRA, casts), so it cannot be part of that layer's product. With
`--compile` it becomes part of the norm after it, as norm and activation become one (by the names of the functions that
torch makes for a CPU, `tests/vc2/test_compiled.py`). In training all tensors are kept for the gradients: memory, copies
and sums are what they were, and gradient checkpointing is what saves memory there ([training](training.md), which also
has the trainer's own steps beside a plain loop's).

**Sharing.** Prompt and negative prompt share what no text has touched, the first layers up to the first attention to
the text: in the command line always, in ComfyUI where both are of one clip and in one batch and nothing plugged in is
given what comes before the text (patches of input blocks and of the attention among pixels, a ControlNet's residuals
for input blocks, another attention). Both go through the text encoder in one pass.

**Decoding** on the command line is in the checkpoint's precision, as many frames at once as make one of 512x512: at
512x320 one, at 256x256 four, so that up to 512x512 it takes no more memory than sampling at 512x320 does.
""")
    if cpu:
        fewest = min(len(row["seconds"]["ours"]) for row in cpu)
        parts.append(f"""## On a CPU

By `VIDEOCRAFTER_PATH=... make bench`: ours beside the official code, in turns in one process on the same weights and
inputs; processor time, the least of {fewest} rounds, and the median of the rounds' ratios. *Width* full is
VideoCrafter2's own, 320 channels; a fifth has 64, and everything else of the network, which a CPU computes in seconds.
*Products*: what as many floating-point operations as ours take as plain products of large matrices, as a share of our
time; about as fast as this machine gets (convolutions can be faster). Where it says compiled, ours is. *Apart* is the
relative RMS of the two results; frames are compared as bytes, of which one now and then rounds to its neighbour; a
guided step has the two passes' difference, roundings included, 12 times. In bf16 the official code runs under
autocast, ours has bf16 weights. The official code runs as it does without xformers, which CPUs lack.

{compared(cpu, ON_A_CPU)}

{narrower(cpu)}{forward_goal(cpu)}
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
        each = [older / now for older, now in zip(times["older"], times["now"], strict=True)]
        parts.append(f"""The demo's clip with the miniature (16 frames of 64x64, 25 steps), sampling alone, in turns
with {row["version"]} (`make bench-against`): {seconds(min(times["older"]))} there, {seconds(min(times["now"]))}
here, {faster:.2f} times as fast (the median of {len(each)} rounds, {min(each):.2f} to {max(each):.2f}).{reached}

{machines([row])}
""")
    parts.append("## On a GPU\n")
    measured = {row["what"]: row for row in rows_of(out, "goals")}
    rows = [{"what": what, "goal": goal} | measured.get(what, {}) for what, goal in GOALS.items()]
    where = "\n" + machines(list(measured.values())) + "\n" if measured else ""
    parts.append(f"`make bench-gpu` measures these in one call of under eight minutes.\n\n{goals(rows)}\n{where}")
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
width{as_it_is}; empty where counting sees no difference, or cannot look inside.

{changes(found)}

Not in this table: {let_go(found, out)}texts in one pass, and small frames decoded many at a time
([counted](#counted)), which are meant for GPUs and were not measured there.

{machines(found)}
""")
    if found := rows_of(out, "few_steps"):
        parts.append(few_steps_report.section(found, out / "performance"))
    (out / "performance.md").write_text("\n".join(parts), encoding="utf-8")
