"""What is published: a source archive that holds the whole repository, and the wheel that is built from it."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from scripts.comfyui import PACK_NAME, ROOT

NOT_OURS = {".git", ".host", ".venv", "build", "data", "dist", "output", "runs"}


def build(source: Path, kind: str) -> Path:
    """Run the build backend in `source`, as pip would; the archive it made."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (archive,) = (source / "dist").iterdir()
    return archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The source archive, unpacked."""
    source = tmp_path_factory.mktemp("package") / "source"
    source.mkdir()
    for path in ROOT.iterdir():  # linked, so that what the build leaves behind is left elsewhere
        if path.name not in NOT_OURS and path.suffix != ".egg-info":
            (source / path.name).symlink_to(path)
    shutil.unpack_archive(build(source, "sdist"), source.parent)
    (folder,) = source.parent.glob("comfyui_videocrafter2-*")
    return folder


@pytest.fixture(scope="module")
def wheel(sdist) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(sdist, "wheel"))


def files(folder: Path, pattern: str = "*.*") -> set[str]:
    paths = (path for path in folder.rglob(pattern) if "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths if path.is_file()}


def test_the_source_archive_is_the_repository(sdist):
    """Its tests can run: code, recipes, graphs, fixtures, locales and the miniature are there."""
    for folder in (
        "bench",
        "docs",
        "locales",
        "nodes",
        "requirements",
        "scripts",
        "subgraphs",
        "tests",
        "training",
        "vc2",
        "web",
        "workflows",
    ):
        assert files(sdist / folder) == files(ROOT / folder), folder
    for name in ("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "__init__.py", "models/vc2-tiny.safetensors"):
        assert (sdist / name).is_file(), name


def test_the_registry_archive_is_what_a_user_needs():
    """Everything tracked but what .comfyignore names: the pack whole, under 14 MiB, nothing for developers."""

    def tracked(*options: str) -> set[str]:
        command = ["git", "ls-files", "-z", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip("not a git checkout")
        return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}

    archive = tracked() - tracked("--cached", "--ignored", "--exclude-from=.comfyignore")
    assert {name.split("/")[0] for name in archive if "/" in name} == {
        "locales",
        "models",
        "nodes",
        "subgraphs",
        "training",
        "vc2",
        "web",
        "workflows",
    }
    for folder in ("nodes", "vc2", "web", "subgraphs", "workflows"):
        assert {f"{folder}/{name}" for name in files(ROOT / folder)} <= archive, folder
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"} <= archive
    assert sum(len(zlib.compress((ROOT / name).read_bytes())) for name in archive) < 14 * 2**20


def test_the_wheel_holds_vc2_and_nothing_else(wheel):
    modules = {f"vc2/{name}" for name in files(ROOT / "vc2", "*.py")}
    recipes = {f"vc2/training/recipes/{name}" for name in files(ROOT / "training" / "recipes")}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert modules | recipes | {"vc2/training/counts.json", "vc2/evaluation/suites/miniature.jsonl"} <= found
    assert {name.split("/")[0] for name in found} == {"vc2"}


def test_the_wheel_tells_what_it_is(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    header = email.message_from_bytes(wheel.read(metadata))
    assert header["Name"] == PACK_NAME
    assert header["License-Expression"] == "Apache-2.0"
    assert header["Author"] == "The comfyui-videocrafter2 authors"
    assert header.get_all("Provides-Extra") == ["cli", "training", "evaluation", "evaluation-extra"]
    assert header.get_all("Classifier")
    assert metadata.replace("METADATA", "licenses/LICENSE") in wheel.namelist()
    needed = [line for line in header.get_all("Requires-Dist") if "extra ==" not in line]
    comments_left_out = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert needed == comments_left_out  # a clone in custom_nodes is told by one, pip by the other
