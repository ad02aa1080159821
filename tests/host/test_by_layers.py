"""docs/host.md's way to compile a MODEL layer by layer, in ComfyUI."""

from __future__ import annotations

import pytest

from tests import standin
from tests.host.inside import observed_inside


@pytest.mark.slow
def test_the_page_compiles_a_model_layer_by_layer(tmp_path):
    observed = observed_inside("by_layers", standin.write(tmp_path / "standin.safetensors"))
    assert observed["difference"] < 1e-5
    assert observed["graphs"] >= 10, "layers of one shape share a graph"
    assert observed["given back"] == [0.0, 0], "the MODEL that was given stays as it is"
