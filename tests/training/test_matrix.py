"""The list of recipes, and where they are found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.recipes import RECIPES, ROOT, TINY, named
from vc2.training.errors import RecipeError
from vc2.training.matrix import matrix
from vc2.training.recipe_files import load_recipe


def test_the_matrix_has_a_line_a_recipe(tmp_path):
    for name in ("F-Spa-LORA", "text"):
        (tmp_path / f"{name}.yaml").write_text(f"base: {TINY / name}.yaml\n")
    lines = matrix(tmp_path)
    assert [line.split()[0] for line in lines[2:]] == [str(tmp_path / "F-Spa-LORA.yaml"), str(tmp_path / "text.yaml")]
    assert lines[3].split()[1:5] == ["nothing", "text", "direct", "captions"]
    assert lines[2].split()[1:5] == ["runs/tiny-F-base/model.safetensors", "spatial", "lora", "16"]


def test_the_columns_of_the_matrix_line_up(tmp_path):
    """However long a name or a path is."""
    for name, start in (("short", "a.ckpt"), ("longer-than-any-column-was-meant-to-be", "b/" * 40 + "b.ckpt")):
        base = f"base: {RECIPES / 'F-Spa-DIR.yaml'}\n"
        (tmp_path / f"{name}.yaml").write_text(f"{base}name: {name}\ninit: {{unet: {start}}}\n")
    header, rule, *rows = matrix(tmp_path)
    for title, cell in (("learns", "spatial"), ("how", "direct"), ("size", "512x512"), ("A100-hours", "50.3")):
        assert {row.index(f"  {cell}") for row in rows} == {header.index(f"  {title}")}
    assert len(rule) == max(len(line) for line in (header, *rows))


@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_a_folder_without_recipes_is_an_error(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_common.yaml").write_text("steps: 1\n")
    with pytest.raises(RecipeError, match="absent: no such folder" if folder == "absent" else "empty holds no recipe"):
        matrix(tmp_path / folder)


def test_recipes_that_come_with_the_package_need_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("F-base") == load_recipe(RECIPES / "F-base.yaml")
    assert load_recipe("tiny/F-base", ["seed=3"]) == load_recipe(TINY / "F-base.yaml", ["seed=3"])
    assert matrix(Path("tiny")) == matrix(TINY)
    with pytest.raises(RecipeError, match=r"tiny-F-base: no such recipe; did you mean tiny/F-base\?"):
        load_recipe("tiny-F-base")
    with pytest.raises(RecipeError, match=r"no-such: no such recipe$"):
        load_recipe("no-such")
    (tmp_path / "F-base").write_text("name: mine\nsteps: 1\nbatch: 1\ndata: {clips: {kind: procedural}}\n")
    assert load_recipe("F-base").name == "mine"


def test_a_wheel_lists_its_recipes_without_torch(tmp_path):
    """As it is installed: without the repository around it."""
    for name in ("vc2", "training/recipes"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    build = "from setuptools import build_meta; build_meta.build_wheel('../wheel')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "source", check=True, capture_output=True)
    [wheel] = (tmp_path / "wheel").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    code = (
        "import sys; from vc2.training import __main__ as main; assert main.run_command(sys.argv[1:]) == 0;"
        " assert 'torch' not in sys.modules, 'torch is slow to import'; print(main.__file__)"
    )
    for folder, names in ((RECIPES, ["F-base", "your-images"]), (TINY, ["tiny/F-base", "tiny/text"])):
        command = [sys.executable, "-c", code, "recipes", *(["tiny"] if folder == TINY else [])]
        *lines, file = subprocess.check_output(command, cwd=tmp_path / "installed", text=True).splitlines()
        assert Path(file).is_relative_to(tmp_path / "installed")
        assert len(lines) == 2 + len(named(folder))
        assert set(names) <= {line.split()[0] for line in lines}
