"""Clips longer than the 16 frames that the model was trained on."""

from __future__ import annotations

from comfy_api.latest import io

from ..vc2.sampling import fifo
from .host.run import run_sampler, sampler, sampling_of
from .host.samplers import sample_fifo
from .host.windows import choose_frames, has_windows, set_context_windows, set_free_noise
from .inputs import ETA, GUIDANCE, choose, sampler_inputs
from .schema import ADVANCED, search

FREE_NOISE, OVERLAP, LOOPED = "FreeNoise", "overlap", "looped"


class VC2ContextWindows(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2ContextWindows",
            display_name="VideoCrafter Context Windows",
            category="VideoCrafter2/long",
            **search("vc2", "long video", "freenoise", "sliding window", "loop", "endless video", "context options"),
            description=(
                "Clips longer than the model was trained on: it looks at windows of frames. Clips no longer than a"
                " window stay as they are."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to patch; the incoming one is not changed."),
                io.Combo.Input(
                    "mode",
                    options=[FREE_NOISE, OVERLAP, LOOPED],
                    default=FREE_NOISE,
                    tooltip=(
                        "FreeNoise: all frames in one pass, windows only in temporal attention, and noise that repeats,"
                        " so that the subject stays; needs memory for all frames. overlap: one window at a time, memory"
                        " as for a short clip. looped: as overlap, and the end meets the start."
                    ),
                ),
                io.Int.Input(
                    "length",
                    default=16,
                    min=1,
                    max=512,
                    tooltip="Frames in a window: what the model was trained on, 16.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "overlap",
                    default=12,
                    min=0,
                    max=511,
                    tooltip=(
                        "Frames that neighbouring windows share. FreeNoise: 12. More is smoother; with overlap and"
                        " looped it is slower too."
                    ),
                ),
            ],
            outputs=[io.Model.Output(tooltip="For any sampler but VC2FIFOSampler, which has windows of its own.")],
        )

    @classmethod
    def execute(cls, model, mode, length, overlap) -> io.NodeOutput:
        choose(mode, (FREE_NOISE, OVERLAP, LOOPED), "mode")
        if overlap >= length:
            raise ValueError(
                f"overlap must be smaller than length, found overlap {overlap} and length {length}; 16 and 12 are a"
                " good start"
            )
        sampling_of(model, "VC2ContextWindows")
        model = model.clone()
        if mode == FREE_NOISE:
            set_free_noise(model, length, length - overlap)
        else:
            set_context_windows(model, length, length - overlap, mode == LOOPED)
        return io.NodeOutput(model)


class VC2FIFOSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VC2FIFOSampler",
            display_name="VideoCrafter FIFO Sampler",
            category="VideoCrafter2/long",
            **search("vc2", "long video", "endless video", "fifo-diffusion", "text to video", "t2v"),
            description=(
                "Clips of any length, one frame after another, from a queue of frames of rising noise. Memory stays"
                " that of a short clip."
            ),
            inputs=[
                *sampler_inputs("From VC2EmptyLatentVideo: one clip, of any length."),
                io.Float.Input("guidance", **GUIDANCE),
                io.Int.Input(
                    "partitions",
                    default=4,
                    min=1,
                    max=16,
                    tooltip=(
                        "Windows in the queue. The number of steps is partitions x window: 4 x 16 = 64. More: finer"
                        " steps, slower."
                    ),
                    **ADVANCED,
                ),
                io.Int.Input(
                    "window",
                    default=16,
                    min=2,
                    max=128,
                    step=2,
                    tooltip="Frames that the model sees at a time: what it was trained on, 16.",
                    **ADVANCED,
                ),
                io.Float.Input("eta", **ETA, **ADVANCED),
            ],
            outputs=[io.Latent.Output(tooltip="The denoised frames, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, latent, seed, guidance, partitions, window, eta) -> io.NodeOutput:
        sampling = sampling_of(model, "VC2FIFOSampler")
        if window % 2:
            raise ValueError(f"VC2FIFOSampler: window must be even, found {window}")
        if has_windows(model):
            raise ValueError("VC2FIFOSampler has windows of its own: take VC2ContextWindows out from before it")
        per_clip = {values.get("frames_per_clip") or len(latent["samples"]) for _, values in positive}
        if per_clip != {len(latent["samples"])}:
            raise ValueError(
                "VC2FIFOSampler samples one clip: set clips to 1 and frames_per_clip to 0; found"
                f" {len(latent['samples'])} frames, {per_clip} a clip"
            )
        if latent["samples"].any() or latent.get("noise_mask") is not None:
            raise ValueError("VC2FIFOSampler starts from noise alone: connect VC2EmptyLatentVideo, without a mask")
        model = choose_frames(model, len(latent["samples"]), window)
        method = sampler(sample_fifo, window=window, partitions=partitions, eta=eta)
        sigmas = sampling.sigmas_of(fifo.levels(window, partitions)[::-1])
        return io.NodeOutput(run_sampler(model, method, sigmas, latent, seed, guidance, positive, negative))
