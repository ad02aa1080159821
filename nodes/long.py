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
                "For clips longer than 16 frames: the model works on windows of frames that overlap. Shorter clips"
                " stay as they are."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to change; the incoming one stays as it is."),
                io.Combo.Input(
                    "mode",
                    options=[FREE_NOISE, OVERLAP, LOOPED],
                    default=FREE_NOISE,
                    tooltip=(
                        "FreeNoise: keeps one subject best; needs memory for all frames. overlap: the memory of a"
                        " short clip; the subject can drift. looped: as overlap, and the end runs into the start, for"
                        " endless playback."
                    ),
                ),
                io.Int.Input(
                    "length",
                    default=16,
                    min=1,
                    max=512,
                    tooltip="Frames in a window. Leave at 16, for which the models are made.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "overlap",
                    default=12,
                    min=0,
                    max=511,
                    tooltip=(
                        "Frames that neighbouring windows share. More is smoother; in overlap and looped it also takes"
                        " longer."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler but VideoCrafter FIFO Sampler, which has windows of its own.")
            ],
        )

    @classmethod
    def execute(cls, model, mode, length, overlap) -> io.NodeOutput:
        choose(mode, (FREE_NOISE, OVERLAP, LOOPED), "mode")
        if overlap >= length:
            raise ValueError(
                f"overlap must be smaller than length, found overlap {overlap} and length {length}; 16 and 12 are a"
                " good start"
            )
        sampling_of(model, "VideoCrafter Context Windows")
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
                "Clips of any length, frame after frame: slow, but the model sees only a window at a time, in the"
                " memory of a short clip."
            ),
            inputs=[
                *sampler_inputs("From Empty VideoCrafter Latent: one clip, as long as you like."),
                io.Float.Input("guidance", **GUIDANCE),
                io.Int.Input(
                    "partitions",
                    default=4,
                    min=1,
                    max=16,
                    tooltip="More: finer steps, and slower. The number of steps is partitions x window, 4 x 16 = 64.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "window",
                    default=16,
                    min=2,
                    max=128,
                    step=2,
                    tooltip=(
                        "Frames that the model sees at a time, an even number. Leave at 16, for which the models are"
                        " made."
                    ),
                    **ADVANCED,
                ),
                io.Float.Input("eta", **ETA, **ADVANCED),
            ],
            outputs=[io.Latent.Output(tooltip="The finished frames, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, latent, seed, guidance, partitions, window, eta) -> io.NodeOutput:
        sampling = sampling_of(model, "VideoCrafter FIFO Sampler")
        if window % 2:
            raise ValueError(f"VideoCrafter FIFO Sampler: window must be even, found {window}")
        if has_windows(model):
            raise ValueError(
                "VideoCrafter FIFO Sampler has windows of its own: take the context windows out from before it"
            )
        per_clip = {values.get("frames_per_clip") or len(latent["samples"]) for _, values in positive}
        if per_clip != {len(latent["samples"])}:
            raise ValueError(
                "VideoCrafter FIFO Sampler samples one clip: set clips to 1 and frames_per_clip to 0; found"
                f" {len(latent['samples'])} frames, {per_clip} a clip"
            )
        if latent["samples"].any() or latent.get("noise_mask") is not None:
            raise ValueError(
                "VideoCrafter FIFO Sampler starts from noise alone: connect Empty VideoCrafter Latent, without a mask"
            )
        model = choose_frames(model, len(latent["samples"]), window)
        method = sampler(sample_fifo, window=window, partitions=partitions, eta=eta)
        sigmas = sampling.sigmas_of(fifo.levels(window, partitions)[::-1])
        return io.NodeOutput(run_sampler(model, method, sigmas, latent, seed, guidance, positive, negative))
