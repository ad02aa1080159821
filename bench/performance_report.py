"""docs/performance.md and its plots, from what lies in docs/performance/*.json: nothing is measured here."""

from __future__ import annotations

from pathlib import Path

from bench import few_steps_report, machine, plots
from bench.tables import NOT_MEASURED, Json, machines, rows_of, seconds, table

FORWARD_GOAL, CLIP_GOAL = 0.75, 1.5  # on a CPU: of the official code's time, and times as fast as 0.2.0
# What `make bench-gpu` measures. At 16 frames of 512x320 where no size is said.
GOALS = {
    "guided step, bf16, compiled": "64 ms on an H100",
    "guided step, bf16": "",
    "prompt to frames, 50 steps, compiled": "4 s on an H100",
    "four passes to frames, compiled": "0.6 s on an H100",
    "peak of prompt to frames, weights included": "8 GB",
    "peak of a guided step against PEAK": "at most 1.0",
    "ComfyUI's overhead for a step": "3 %",
    "peak in ComfyUI with --lowvram": "4 GB",
    "MFU of F-base": "45 %",
    "MFU of F-Spa-DIR": "45 %",
    "MFU of F-Spa-LORA": "45 %",
}


def _case(case: Json) -> str:
    steps = f", {case['steps']} steps" if case["steps"] > 1 else ""
    return f"{case['workload']}{steps}" + ", compiled" * case["compiled"]


def _ratio(row: Json) -> float | None:
    return machine.ratio(row["seconds"], "ours", "official") if "official" in row["seconds"] else None


def compared(rows: list[Json]) -> str:
    """Ours beside the official code; the least of the rounds."""
    lines = []
    for row in rows:
        case, ratio, official = row["case"], _ratio(row), row["seconds"].get("official")
        lines.append(
            [
                _case(case),
                case["network"],
                f"{case['frames']} of {case['width']}x{case['height']}",
                case["precision"],
                seconds(min(official) if official else None),
                seconds(min(row["seconds"]["ours"])),
                f"{ratio:.2f}x" if ratio else "",
                f"{machine.ratio(row['seconds'], 'products', 'ours'):.2f}x" if "products" in row["seconds"] else "",
                f"{row['difference']:.1e}" if row["difference"] is not None else "",
                f"{row['peak'] / 2**20:.0f} MiB" if row["peak"] else "",
            ]
        )
    return table(
        "what | width | frames | precision | official | ours | | products | apart | peak beyond weights", lines
    )


def forward_goal(rows: list[Json]) -> str:
    """Whether a forward pass at full width reached its goal, and if not, what stands in the way."""
    for row in rows:
        case, ratio = row["case"], _ratio(row)
        if (case["workload"], case["network"]) != ("UNet forward", "full") or not ratio:
            continue
        if ratio <= FORWARD_GOAL:
            return (
                f"The goal for a forward pass at full width, {FORWARD_GOAL:g}x of the official code, is reached:"
                f" {ratio:.2f}x. What gave\nhow much stands [below](#what-each-change-gave).\n"
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
    names = sorted({row["version"] for row in rows})  # digits before "now"
    by = {(row["version"], row["what"]): row for row in rows}
    lines = []
    for what in dict.fromkeys(row["what"] for row in rows):
        for key, unit, scale in (("peak", "MiB", 2**20), ("moved", "GB", 1e9), ("flops", "TFLOP", 1e12)):
            lines.append([what, f"{key} ({unit})", *(f"{by[name, what][key] / scale:,.0f}" for name in names)])
        for kind in KINDS:
            counts = [sum(by[name, what]["operations"].get(op, 0) for op in KINDS[kind]) for name in names]
            lines.append([what, kind, *(str(count) for count in counts)])
        lines.append([what, "operations", *(str(sum(by[name, what]["operations"].values())) for name in names)])
    return table(f"a step | | {' | '.join(names)}", lines)


def longer(rows: list[Json]) -> str:
    """What the counted peaks mean for the length of clips."""
    names = sorted({row["version"] for row in rows})
    peaks = {row["version"]: row["peak"] for row in rows if "FreeNoise" in row["what"]}
    older, now = (peaks[name] / 64 / 2**20 for name in names)
    return (
        f"Under FreeNoise a frame of 512x320 takes {older:.0f} MiB of activations in {names[0]} and {now:.0f} MiB now,"
        f" so a GB holds {older / now:.1f} times as many."
    )


# Operations by what they are to a GPU: each is a kernel of its own, unless compiled.
KINDS = {
    "copies of layout": ("clone", "_to_copy", "copy_", "contiguous"),
    "residual sums": ("add",),
    "sums in place": ("add_", "addcmul_"),
    "pointwise": ("mul", "mul_", "gelu", "gelu_", "silu", "silu_"),
    "norms": ("native_group_norm", "native_layer_norm"),
    "convolutions": ("convolution",),
    "matrix products": ("mm", "addmm", "bmm"),
}


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


def write(out: Path) -> None:
    cpu, gpu = rows_of(out, "cpu"), rows_of(out, "gpu")
    parts = [
        """# How fast, and how much memory

Written by `make bench` from docs/performance/*.json, which it and the commands below
measure; what was not measured says so.
""",
    ]
    if found := rows_of(out, "counted"):
        parts.append(f"""## Counted

By `python -m bench.counted`, operation by operation on torch's meta device: in bf16, attention in one fused kernel, 16
frames where nothing else is said; of a guided step prompt and negative prompt are one batch, of a training step the
gradients of all weights are computed, nothing of it again. The same on every machine. *Peak* is beyond the weights,
gradients included.

{counted(found)}

{longer(found)}
ComfyUI is told a bound (`PEAK`), with a quarter more; 0.2.0 told it a guess of 2.4 times as much. Clips of up to
448x288 can take up to a slice, 64 MiB, more than the bound, and a single frame of 1920x1088, of which nothing is
sliced, 128 MiB.

Where the peak went: a tensor is let go of as soon as nothing reads it any more, sums and activations go where an
operand was, and without gradients the feed-forward goes a slice of the batch after the other (and FreeNoise's
attention in halves), each with norms and products of its own, which is why there are more of these; a slice is
meant to keep a GPU busy (not measured). What is still there: residual sums, most of them in place. Each adds what a
layer of the host computed, behind whatever the host did to it (LoRA, casts), so it cannot ride in that layer's
product. Under autograd all of this is kept, and memory is what it was; there gradient checkpointing is for that
([training](training.md)).

Prompt and negative prompt share what no text has touched, the first layers up to the first attention to the text:
in the command line always, in ComfyUI where both are of one clip and in one batch and nothing plugged in is given
what comes before the text (patches of input blocks and of the attention among pixels, a ControlNet's residuals for
input blocks, another attention). Where nothing is shared, the peak is `PEAK` itself.
""")
    if cpu:
        fewest = min(len(row["seconds"]["ours"]) for row in cpu)
        parts.append(f"""## On a CPU

Ours beside the official code, in turns in one process on the same weights and inputs: processor time, the least of
{fewest} rounds, and the median of the rounds' ratios. *Width* full is VideoCrafter2's own. *Products*: what as many
floating-point operations as ours take as plain products of large matrices, which is about as fast as this machine
gets (convolutions can be faster). Where it says compiled, ours is. *Apart* is the relative RMS of the two results;
frames are compared as bytes, of which one now and then rounds to its neighbour; a guided step has the two passes'
difference, roundings included, 12 times. In bf16 the official code runs under autocast, ours has bf16 weights. The
official code runs as it does without xformers, which CPUs lack.

{compared(cpu)}

{forward_goal(cpu)}
{machines(cpu)}

![ours as a share of the official code's time](performance/cpu.svg)
""")
        shares = {
            f"{_case(row['case'])}, {row['case']['network']} width, {row['case']['precision']}": ratio
            for row in cpu
            if (ratio := _ratio(row))
        }
        if shares:
            title = "On a CPU: ours as a share of the official code's time"
            (out / "performance" / "cpu.svg").write_text(plots.bars(title, shares, "official"))
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
with {row["version"]} (`python -m bench.against`): {seconds(min(times["older"]))} there, {seconds(min(times["now"]))}
here, {faster:.2f} times as fast (the median of {len(each)} rounds, {min(each):.2f} to {max(each):.2f}).{reached}

{machines([row])}
""")
    parts.append("## On a GPU\n")
    if gpu:
        parts.append(f"By `make bench` on a GPU.\n\n{compared(gpu)}\n\n{machines(gpu)}\n")
    measured = {row["what"]: row for row in rows_of(out, "goals")}
    rows = [{"what": what, "goal": goal} | measured.get(what, {}) for what, goal in GOALS.items()]
    where = "\n" + machines(list(measured.values())) + "\n" if measured else ""
    parts.append(f"`make bench-gpu` measures these in one call of under eight minutes.\n\n{goals(rows)}\n{where}")
    if found := rows_of(out, "changes"):
        now = next(row for row in rows_of(out, "counted") if row["version"] == "now")
        parts.append(f"""## What each change gave

By `python -m bench.changes`: a forward pass of the UNet with one thing done in another way, in turns with ours as it
is, processor time. Above 1.00x ours is faster; at or below it the other way would be as good or better on this machine;
where the rounds lie on both sides of 1, nothing is shown. One prompt, 16 frames of 128x128, a fifth of the width, fp32.
*Peak* and *operations* are counted, of a guided step at 512x320 and full width: {now["peak"] / 2**20:,.0f} MiB and
{sum(now["operations"].values()):,} as it is; empty: not to be counted, since it is inside the kernels.

{changes(found)}

Not in this table: what is let go of once it has been read (a block's input, queries, keys and values, sums before and
after), which took most of the peak away and no operation. Prompt and negative prompt go through the text encoder in
one pass, which is half as many kernels, and small frames are decoded many at a time (*decode* above), in the
checkpoint's precision. Both are meant for GPUs, where they were not measured.

{machines(found)}
""")
    if found := rows_of(out, "few_steps"):
        parts.append(few_steps_report.section(found, out / "performance"))
    (out / "performance.md").write_text("\n".join(parts))
