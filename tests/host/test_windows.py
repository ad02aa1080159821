"""The pack in ComfyUI with what Python has on Windows; ComfyUI itself is imported before the rest is taken away."""

from __future__ import annotations

from scripts.comfyui import ROOT, comfyui_tree
from tests import standin
from tests.vc2.test_windows import on_windows, pytestmark  # noqa: F401 (the mark is this module's too)


def test_the_pack_imports_and_loads(tmp_path):
    path = standin.write(tmp_path / "standin.safetensors")
    host = """
    import sys
    tree, root, path = sys.argv[1:]
    del sys.argv[1:]
    sys.path.insert(0, tree)
    from comfy.cli_args import args
    args.cpu = True
    import comfy.sd, comfy.samplers, comfy.sample, comfy.controlnet, comfy.context_windows, comfy_api.latest
    """
    code = """
    import asyncio, importlib.util
    spec = importlib.util.spec_from_file_location("pack", f"{root}/__init__.py", submodule_search_locations=[root])
    pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    from pack.nodes.host.loading import load_clip, load_model, load_vae
    from pack.vc2.files import checkpoint
    loaded = checkpoint.load(path)
    for load in (load_model, load_clip, load_vae):
        load(loaded)
    print(len(nodes))
    """
    assert int(on_windows(code, comfyui_tree(), ROOT, path, before=host).split()[-1]) > 10
