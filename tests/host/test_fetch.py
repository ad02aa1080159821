"""What a ComfyUI is made of, fetched: from a repository and wheels of the tests' own, not from the network."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import fetch
from scripts.fetch import ComfyUIError, comfyui_tree, environment, front_end


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMFYUI_PATH", "COMFYUI", "COMFYUI_URL", "FRONT_END"):
        monkeypatch.delenv(name, raising=False)


def git(*arguments: str, folder: Path) -> None:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of ComfyUI with three releases and what is none."""
    repository = tmp_path / "repository"
    repository.mkdir()
    git("init", "--quiet", folder=repository)
    for version in ("0.9.2", "0.10.0", "0.10.1-rc1", "0.9.10", "latest"):
        (repository / "main.py").write_text(f"# {version}")
        git("add", ".", folder=repository)
        git("commit", "--quiet", "--message", version, folder=repository)
        git("tag", f"v{version}", folder=repository)
    monkeypatch.setenv("COMFYUI_URL", repository.as_uri())
    return repository


@pytest.mark.parametrize(("asked", "version"), [("latest", "0.10.0"), ("0.9.2", "0.9.2"), ("v0.9.10", "0.9.10")])
def test_a_release_is_cloned_once(releases, tmp_path, monkeypatch, asked: str, version: str) -> None:
    monkeypatch.setenv("COMFYUI", asked)
    tree = comfyui_tree(tmp_path / "cache")
    assert tree == tmp_path / "cache" / f"comfyui-{version}"
    assert (tree / "main.py").read_text() == f"# {version}"
    (tree / "main.py").write_text("# mine")
    assert (comfyui_tree(tmp_path / "cache") / "main.py").read_text() == "# mine"
    assert [path.name for path in tree.parent.iterdir()] == [tree.name]


def test_a_release_that_is_there_needs_no_network(releases, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COMFYUI", "0.9.2")
    tree = comfyui_tree(tmp_path / "cache")
    monkeypatch.setenv("COMFYUI_URL", (tmp_path / "gone").as_uri())
    assert comfyui_tree(tmp_path / "cache") == tree


@pytest.mark.parametrize(
    ("asked", "message"), [("latest", "COMFYUI=latest: .* tells no releases"), ("0.9.2", "COMFYUI=0.9.2: cannot be")]
)
def test_without_a_network_one_message_says_what_to_do(tmp_path, monkeypatch, asked: str, message: str) -> None:
    monkeypatch.setenv("COMFYUI", asked)
    monkeypatch.setenv("COMFYUI_URL", (tmp_path / "gone").as_uri())
    with pytest.raises(ComfyUIError, match=rf"{message}.*; name a release that .host/ has, .*COMFYUI_PATH: fatal: "):
        comfyui_tree(tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_the_command_ends_with_that_message(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COMFYUI", "latest")
    monkeypatch.setenv("COMFYUI_URL", (tmp_path / "gone").as_uri())
    command = [sys.executable, "-m", "scripts.fetch", "environment"]
    run = subprocess.run(command, cwd=fetch.ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("COMFYUI=latest: ")
    assert len(run.stderr.splitlines()) == 1


def test_a_release_that_is_none_is_named(releases, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COMFYUI", "9.9.9")
    with pytest.raises(ComfyUIError, match=r"COMFYUI=9\.9\.9: cannot be cloned from file:"):
        comfyui_tree(tmp_path / "cache")


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packages that pip was asked to download; every one is a front end 1.2.3."""
    asked: list[str] = []

    def download(package: str, folder: Path, what: str) -> Path:
        asked.append(package)
        wheel = folder / "comfyui_frontend_package-1.2.3-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("comfyui_frontend_package/__init__.py", "")
            archive.writestr("comfyui_frontend_package/static/index.html", "a page")
        return wheel

    monkeypatch.setattr(fetch, "_download", download)
    return asked


def test_the_trees_own_front_end_is_used(downloads, tmp_path) -> None:
    assert front_end(tmp_path) is None
    assert downloads == []


def test_another_front_end_is_unpacked_once(downloads, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FRONT_END", "latest")
    for _ in range(2):
        pages = front_end(tmp_path)
        assert pages == tmp_path / "front-end-1.2.3"
    assert [path.name for path in pages.iterdir()] == ["index.html"]
    assert downloads == ["comfyui-frontend-package"] * 2  # the second time for its version
    monkeypatch.setenv("FRONT_END", "1.2.3")
    assert front_end(tmp_path) == pages
    assert len(downloads) == 2


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was run to make an environment."""
    ran: list[list[str]] = []

    def run(command: list[str], failure: str) -> str:
        ran.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)
        elif "broken" in Path(command[command.index("-r") + 1]).read_text():
            raise ComfyUIError(failure)
        return ""

    monkeypatch.setattr(fetch, "_run", run)
    return ran


def test_an_environment_belongs_to_its_requirements(installs, tmp_path) -> None:
    needs = tmp_path / "requirements.txt"
    needs.write_text("torch")
    python = environment(tmp_path, tmp_path / "cache")
    assert python.parent.parent.parent == tmp_path / "cache"
    pip = installs[1]
    assert pip[0] == str(python)
    assert pip[pip.index("-r") + 1] == str(needs)
    assert pip[-2:] == ["-e", f"{fetch.ROOT}[cli,training,evaluation]"]
    assert environment(tmp_path, tmp_path / "cache") == python
    assert len(installs) == 2
    needs.write_text("torch\nav>=16")
    assert environment(tmp_path, tmp_path / "cache") != python


def test_an_environment_that_was_not_finished_is_made_again(installs, tmp_path) -> None:
    (tmp_path / "requirements.txt").write_text("broken")
    for _ in range(2):
        with pytest.raises(ComfyUIError, match=f"the requirements of {tmp_path} cannot be installed"):
            environment(tmp_path, tmp_path / "cache")
    assert len(installs) == 4


def test_a_tree_without_requirements_is_named(tmp_path) -> None:
    with pytest.raises(ComfyUIError, match=r"requirements\.txt: no such file"):
        environment(tmp_path, tmp_path / "cache")
