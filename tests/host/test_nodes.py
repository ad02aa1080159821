"""The nodes in a real ComfyUI: whole graphs, stock nodes around them, progress, interrupt, wrong input, memory."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scripts.client import PromptError, PromptInterruptedError
from scripts.workflow import ui_to_api
from tests import standin
from tests.fixtures import manifest, relative_rms
from tests.host.graphs import SAME, base, ksampler, node, run_for_latent, vc2_sampler
from vc2.files.video import read_metadata, read_video
from vc2.sampling.schedule import NoiseSchedule

ROOT = Path(__file__).parent.parent.parent
TINY = "vc2-tiny.safetensors"


@pytest.fixture(scope="module")
def models(server):
    """Wrong and narrow checkpoints in the server's models folder."""
    folder = server.base / "models" / "checkpoints"
    standin.write(folder / "nodes.safetensors")
    torch.save(
        {name: torch.zeros(()).expand(shape) for name, shape in manifest()["sd21_unet"].items()}, folder / "sd21.ckpt"
    )
    (folder / "broken.safetensors").write_bytes(b"not a checkpoint")
    wide = standin.unet_config("vc2_base_narrow")
    standin.write(server.base / "models" / "diffusion_models" / "wide.safetensors", "vc2_base_narrow")
    assert wide.context_dim == 128
    return folder


def decoded(graph, kind="VAEDecode", **inputs):
    return graph | {"decode": node(kind, samples=["sampler", 0], vae=["load", 2], **inputs)}


def saved(graph, **changes):
    inputs = {"images": ["decode", 0], "fps": 10.0, "filename_prefix": "video/test", "format": "mp4"} | changes
    return graph | {"save": node("VC2SaveVideo", **inputs)}


def fetch(client, result, folder) -> Path:
    file = result.files[-1]
    path = folder / file.filename
    path.write_bytes(client.view(file.filename, file.subfolder, file.type))
    return path


def test_quickstart(client, tmp_path):
    """The workflow file that users drop on the canvas: a video of the asked size that carries its own graph."""
    workflow = json.loads((ROOT / "workflows" / "VideoCrafter2_1_Quickstart.json").read_text())
    seen = []
    result = client.run(ui_to_api(workflow, client.object_info()), on_progress=seen.append, workflow=workflow)
    path = fetch(client, result, tmp_path)
    frames = read_video(path)
    assert frames.shape == (16, 64, 64, 3)
    assert frames.std() > 5
    assert read_metadata(path)["workflow"]["nodes"] == workflow["nodes"]
    steps = [p.value for p in seen if p.max == 25]
    assert steps == sorted(steps)
    assert steps[-1] == 25


@pytest.mark.parametrize("format", ["mp4", "webm", "gif", "webp", "png"])
def test_formats(client, models, tmp_path, format):
    result = client.run(saved(decoded(base("nodes.safetensors") | {"sampler": vc2_sampler(steps=1)}), format=format))
    path = fetch(client, result, tmp_path)
    assert path.suffix == f".{format}"
    if format in ("mp4", "webm", "gif"):
        assert len(read_video(path)) == 4


def test_stock_graph(client, models, tmp_path):
    """KSampler, VAEDecode, CreateVideo and SaveVideo know nothing of us."""
    graph = decoded(base("nodes.safetensors") | {"sampler": ksampler(steps=2)})
    graph["video"] = node("CreateVideo", images=["decode", 0], fps=8.0)
    graph["save"] = node("SaveVideo", video=["video", 0], filename_prefix="stock", format="mp4", codec="h264")
    assert len(read_video(fetch(client, client.run(graph), tmp_path))) == 4


def test_latents_keep_their_shape_through_stock_nodes(client, models):
    graph = base("nodes.safetensors", size=64) | {"sampler": ksampler(steps=2)}
    graph["tiled"] = node(
        "VAEDecodeTiled",
        samples=["sampler", 0],
        vae=["load", 2],
        tile_size=64,
        overlap=0,
        temporal_size=64,
        temporal_overlap=8,
    )
    graph["encode"] = node("VAEEncode", pixels=["tiled", 0], vae=["load", 2])
    assert run_for_latent(client, graph, "encode").shape == (4, 4, 8, 8)


def test_advanced_sampler_in_two_halves_is_one_whole(client, models):
    """The latent between the two, with leftover noise and none added, must mean the same to both."""

    def part(latent, add, start, end, leftover):
        return node(
            "KSamplerAdvanced",
            model=["load", 0],
            positive=["condition", 0],
            negative=["condition", 1],
            latent_image=[latent, 0],
            add_noise=add,
            noise_seed=7,
            steps=6,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise=leftover,
        )

    graph = base("nodes.safetensors")
    whole = run_for_latent(client, graph | {"sampler": part("latent", "enable", 0, 10000, "disable")})
    graph |= {
        "first": part("latent", "enable", 0, 3, "enable"),
        "sampler": part("first", "disable", 3, 10000, "disable"),
    }
    assert torch.allclose(run_for_latent(client, graph), whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


def test_video_to_video_stays_near_its_source(client, models):
    """denoise below 1 starts from the given frames: the less of it, the nearer to them, whatever the prompt."""
    graph = base(TINY, frames=4, size=64, fps=16) | {"source": vc2_sampler(steps=10, guidance=4.0)}
    graph["positive"]["inputs"]["text"] = "a red circle moving right"
    graph["other"] = node("CLIPTextEncode", clip=["load", 1], text="a blue square moving left")
    inputs = graph["condition"]["inputs"] | {"positive": ["other", 0]}
    graph["others"] = node("VC2VideoConditioning", **inputs)
    source = run_for_latent(client, graph, "source")
    distances = []
    for denoise in (0.2, 0.9):
        given = {"positive": ["others", 0], "negative": ["others", 1], "latent": ["source", 0]}
        again = vc2_sampler(steps=10, guidance=4.0, denoise=denoise, seed=8, **given)
        distances.append(float((run_for_latent(client, graph | {"sampler": again}) - source).square().mean()))
    assert distances[0] < 0.5 * distances[1]


def test_finetuned_unet_with_its_own_loader(client, models, server):
    """VC2LoadDiffusionModel gives the same MODEL as the whole checkpoint it was taken from."""
    from vc2.files import checkpoint

    whole = checkpoint.load(models / "nodes.safetensors")
    checkpoint.save(
        server.base / "models" / "diffusion_models" / "finetuned.safetensors", unet=whole.unet, schedule=whole.schedule
    )
    graph = base("nodes.safetensors") | {"sampler": vc2_sampler(steps=3)}
    expected = run_for_latent(client, graph)
    graph["unet"] = node("VC2LoadDiffusionModel", unet_name="finetuned.safetensors", weight_dtype="default")
    graph["sampler"] = vc2_sampler(steps=3, model=["unet", 0])
    assert relative_rms(run_for_latent(client, graph), expected) < SAME


def test_an_sd21_context_does_not_fit_and_says_so(client, models):
    graph = base("nodes.safetensors") | {"sampler": vc2_sampler(steps=1)}
    graph["unet"] = node("VC2LoadDiffusionModel", unet_name="wide.safetensors", weight_dtype="default")
    graph["sampler"] = vc2_sampler(steps=1, model=["unet", 0])
    with pytest.raises(PromptError, match="width of 64 but this model reads 128") as error:
        run_for_latent(client, graph)
    assert error.value.node_type == "VC2Sampler"


@pytest.mark.parametrize(
    ("change", "node_type", "message"),
    [
        ({"load": {"ckpt_name": "sd21.ckpt"}}, "VC2LoadCheckpoint", "Stable Diffusion image UNet"),
        ({"load": {"ckpt_name": "broken.safetensors"}}, "VC2LoadCheckpoint", "is a text file, not weights"),
        ({"load": {"ckpt_name": "absent.safetensors"}}, "VC2LoadCheckpoint", "absent.safetensors"),
        ({"load": {"weight_dtype": "int3"}}, "VC2LoadCheckpoint", "int3"),
        ({"latent": {"width": 500}}, "VC2EmptyLatentVideo", "divisible by 8, found 500; the nearest is 496"),
        ({"latent": {"frames": 0}}, "VC2EmptyLatentVideo", "smaller than min"),
        ({"sampler": {"steps": 0}}, "VC2Sampler", "smaller than min"),
        ({"condition": {"frames_per_clip": 3}}, "VC2Sampler", "not whole clips of 3"),
    ],
)
def test_wrong_input_is_an_error_at_its_node(client, models, change, node_type, message):
    graph = base("nodes.safetensors") | {"sampler": vc2_sampler(steps=1)}
    for name, inputs in change.items():
        graph[name]["inputs"] |= inputs
    with pytest.raises(PromptError) as error:
        run_for_latent(client, graph)
    assert error.value.node_type == node_type
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [("EmptySD3LatentImage", {"batch_size": 4}), ("EmptyHunyuanLatentVideo", {"length": 13, "batch_size": 1})],
)
def test_latents_of_other_models_are_refused(client, models, kind, inputs):
    """16 channels, and frames in a dimension of their own."""
    graph = base("nodes.safetensors") | {"sampler": vc2_sampler(steps=1)}
    graph["latent"] = node(kind, width=64, height=64, **inputs)
    with pytest.raises(
        PromptError, match=r"must be \[frames, 4, height / 8, width / 8\], found \[.*16.*Empty VideoCrafter Latent"
    ):
        run_for_latent(client, graph)


@pytest.mark.parametrize("shape", [[4, 16, 8, 8], [1, 16, 4, 8, 8]])
def test_the_stock_sampler_refuses_latents_of_other_models(client, server, models, shape):
    """In the words of ours. An empty latent of 16 channels it makes one of ours, as for every model."""
    name = f"other_model_{len(shape)}.latent"
    save_file(
        {"latent_tensor": torch.ones(shape), "latent_format_version_0": torch.ones(1)}, server.base / "input" / name
    )
    graph = base("nodes.safetensors") | {"sampler": ksampler(steps=1)}
    graph["latent"] = node("LoadLatent", latent=name)
    refusal = rf"must be \[frames, 4, .* found \[{shape[0]}, 16, .*Empty VideoCrafter Latent"
    with pytest.raises(PromptError, match=refusal):
        run_for_latent(client, graph)
    graph["latent"] = node("EmptySD3LatentImage", width=64, height=64, batch_size=4)
    assert run_for_latent(client, graph).shape == (4, 4, 8, 8)


@pytest.mark.parametrize("sampler", [vc2_sampler, ksampler])
@pytest.mark.parametrize(
    ("kind", "inputs"),
    [("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False}), ("ModelSamplingSD3", {"shift": 3.0})],
)
def test_a_replaced_model_sampling_is_noticed(client, models, sampler, kind, inputs):
    """It drops the rescale; our sampler says so instead of sampling wrongly, and so does the stock one."""
    graph = base("nodes.safetensors") | {"other": node(kind, model=["load", 0], **inputs)}
    graph["sampler"] = sampler(steps=1, model=["other", 0])
    with pytest.raises(PromptError, match=r"replaced the model.*, which drops the dynamic rescale"):
        run_for_latent(client, graph)


def test_interrupt(client, models):
    """A long run stops within a few steps of being told to, and the server goes on working."""
    graph = base(TINY, frames=16, size=64) | {"sampler": vc2_sampler(steps=1000)}
    graph["save"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="never")
    started = threading.Event()

    def stop():
        started.wait(60)
        client.interrupt()

    thread = threading.Thread(target=stop)
    thread.start()
    steps = []

    def progress(step):
        if step.max == 999:  # timesteps 1 to 999
            steps.append(step.value)
            if step.value >= 3:
                started.set()

    with pytest.raises(PromptInterruptedError):
        client.run(graph, on_progress=progress)
    thread.join()
    assert steps[-1] < 30
    assert run_for_latent(client, base("nodes.safetensors") | {"sampler": vc2_sampler(steps=1)}).shape == (4, 4, 4, 4)


@pytest.mark.slow
def test_prompts_in_a_row_do_not_grow_the_server(client, server, models):
    """Caches and allocators fill up and then rest; a leak of megabytes grows in every round. `test_inside` counts."""
    graph = saved(decoded(base("nodes.safetensors", frames=8, size=64) | {"sampler": vc2_sampler(steps=2)}))
    growth = []
    for first in range(0, 30, 5):
        before = server.rss
        for seed in range(first, first + 5):
            graph["sampler"]["inputs"]["seed"] = 100 + seed
            client.run(graph)
        growth.append(server.rss - before)
    assert min(growth[-3:]) < 4 * 2**20, growth


def test_previews(client, models):
    """The host's own latent previews show our frames while they are sampled."""
    graph = base(TINY, frames=4, size=64, fps=16) | {"sampler": vc2_sampler(steps=4)}
    result = client.run(graph | {"save": node("SaveLatent", samples=["sampler", 0], filename_prefix="latents/test")})
    assert len(result.previews) >= 2
    assert result.previews[-1][:2] == b"\xff\xd8"  # a JPEG


@pytest.mark.parametrize("case", ["vc1_512_tiny", "vc1_1024_tiny"])
@pytest.mark.parametrize("dtype", ["default", "fp8_e4m3fn"])
def test_videocrafter1(client, models, case, dtype):
    standin.write(models / f"{case}.safetensors", case, NoiseSchedule(None if case == "vc1_512_tiny" else 0.3))
    graph = base(f"{case}.safetensors") | {"sampler": vc2_sampler(steps=3)}
    graph["load"]["inputs"]["weight_dtype"] = dtype
    assert torch.isfinite(run_for_latent(client, graph)).all()
