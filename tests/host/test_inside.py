"""What does not show in a clip: the memory that is reserved, how conditions are batched, what a run leaves behind."""

from __future__ import annotations

import pytest

from bench.counted import Step
from tests import standin
from tests.host.inside import observed_inside
from vc2.networks.unet import PEAK


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> dict:
    path = standin.write(tmp_path_factory.mktemp("inside") / "standin.safetensors")
    return observed_inside("leftovers", path)


@pytest.mark.parametrize(
    ("how", "frames"),
    [
        ("all frames", 24),
        ("FreeNoise", 24),
        ("windows", 4),
        ("windows of two clips", 8),
        ("windows longer than the clips", 6),
        ("stock windows of two clips", 8),
        ("FIFO", 4),
        ("FIFO of less than a window", 3),
    ],
)
def test_memory_is_reserved_for_what_the_model_sees(observed, how, frames):
    assert observed[how] == frames


def test_the_host_chooses_attention_among_pixels_and_not_among_frames(observed):
    """Whatever its flags say: their kernels are made for longer sequences than a clip's frames."""
    assert observed["attention"] == {"spatial": ["_attention"], "temporal": ["torch_attention"]}


def test_a_linear_has_the_weights_that_the_host_gives_it(observed):
    same = pytest.approx(0, abs=1e-5)
    assert observed["linears"] == {"as it is": same, "bf16": same, "patched": same, "taken": 2}


def test_the_peak_that_the_host_is_told_is_its_own_too(observed):
    step = Step(512, 320)
    assert 0.9 < observed["peak"] / (PEAK * step.latent) <= 1


def test_a_window_of_both_conditions_is_one_batch(observed):
    """The host batches two conditions where they have the very same ControlNet."""
    assert observed["controlled batches"] == [8]


def test_a_looped_window_reads_the_prompt_of_its_own_middle(observed):
    """The last of four, frames 24 to 31 and 0 to 7 of 32, has that at the clip's end."""
    assert observed["looped prompts"] == [[[name], None] for name in ("first", "first", "second", "second")]


def test_a_run_leaves_nothing_behind(observed):
    assert observed["left on the network"] == []
    assert not observed["left on the model"]
    assert observed["more tensors after more runs"] == 0
