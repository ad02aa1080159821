"""The page's part on what is counted, from the rows of `bench.counted`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench.tables import Json, table

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


def rows_table(rows: list[Json]) -> str:
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


def section(found: list[Json]) -> str:
    return f"""## Counted

By `python -m bench.counted`, operation by operation on torch's meta device, so the same on every machine: in bf16, the
UNet's attention in one fused kernel, 16 frames of 512x320 where nothing else is said. Of a guided step prompt and
negative prompt are one batch; of a training step, over one clip, the gradients of all weights are computed, without
gradient checkpointing, in bf16 throughout (autocast, which the trainer uses, keeps 30.6 GB of such a clip:
[training](training.md#at-real-sizes)). *Peak* is beyond the weights, gradients included; *moved* what operations read
and wrote. *Copies* change a layout or join tensors, *sums* are mostly residual, *pointwise* are activations and
products by element. *0.2.0 → now* (with torch {found[0]["torch"]}, by commit c0b9ca1 and by this one, as a test holds);
one number where both are the same.

{rows_table(found)}

{longer(found)}

**A bound.** ComfyUI reserves memory before a pass, and is told a bound of the peak for that: `PEAK` bytes for each byte
of one channel of the latents, which is what a pass takes where prompt and negative prompt share nothing (*Sharing*,
below), and a quarter more. 0.2.0 told it a guess of 2.4 times as much. Small passes (a single frame, or latents no
larger than those of 16 frames of 448x288) can take up to 64 MiB more than `PEAK`, and a single frame of 1920x1088, of
which nothing is sliced, 128 MiB: little beside what ComfyUI itself keeps free (400 MiB and more).

**Where the peak went.** A tensor is let go of as soon as nothing reads it any more, sums and activations go where an
operand was, and without gradients the feed-forward goes a slice of the batch after the other (and FreeNoise's
attention in halves), each with norms, products and sums of its own, which is why there are more of these; a slice is
meant to keep a GPU busy (not measured). What sums move is less only by what prompts share: in the host a sum comes
after LoRA and casts, so no product can take it in, and outside of one it gained nothing where it was tried ([the
feed-forward's](performance.md#what-each-change-gave)). With `--compile` it becomes part of the norm after it, as norm
and activation become one (by the names of the functions that torch makes for a CPU, `tests/vc2/test_compiled.py`). In
training all tensors are kept for the gradients: memory is what it was and the rest nearly, and gradient checkpointing
is what saves memory there ([training](training.md), which also has the trainer's own steps beside a plain loop's). Of
the kernels, training has convolutions over time as conv2d, `init_attn`'s Linears and temporal attention's; slices,
work in place and oneDNN's Linears have no gradients.

**Sharing.** Prompt and negative prompt share what no text has touched, the first layers up to the first attention to
the text: in the command line always, in ComfyUI where both are of one clip and in one batch and nothing plugged in is
given what comes before the text (patches of input blocks and of the attention among pixels, a ControlNet's residuals
for input blocks, another attention). Both go through the text encoder in one pass.

**Decoding** on the command line is in the checkpoint's precision, as many frames at once as make one of 512x512: at
512x320 one, at 256x256 four, so that up to 512x512 it takes no more memory than sampling at 512x320 does in the same
precision.
"""
