"""A compiled MODEL in ComfyUI: as one, as stock TorchCompileModel has it, and layer by layer, as docs/host.md does."""

from __future__ import annotations

import pytest

from tests import standin
from tests.host.inside import observed_inside


@pytest.mark.slow
def test_a_compiled_model(tmp_path):
    observed = observed_inside("compiling", standin.write(tmp_path / "standin.safetensors"))
    assert observed["as one"] < 1e-5
    assert observed["shared"] == [8], "both prompts share what comes before the text"
    assert observed["by layers"] < 1e-5
    assert observed["graphs"] >= 10, "layers of one shape share a graph"
    assert observed["given back"] == [0.0, 0], "the MODEL that was given stays as it is"
