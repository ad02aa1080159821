"""With what Python has on Windows: the POSIX-only names are taken away, and its rules for files in use put in place.
The trainer is in `tests/training/test_windows.py`, the pack in `tests/host/test_windows.py`.

What other packages do there is theirs: they are imported before.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import standin
from vc2.files import checkpoint

ROOT = Path(__file__).parents[2]

WINDOWS = """
import importlib, os, pathlib, pkgutil, shutil, signal, sys, tempfile
import accelerate, einops, imageio_ffmpeg, numpy, open_clip, PIL.Image, safetensors.torch, torch, tqdm  # theirs

there = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
for name in dir(signal):
    if name.startswith("SIG") and name not in there:
        delattr(signal, name)
for name in ("alarm", "setitimer", "pause", "sigwait", "siginterrupt", "pthread_kill"):
    delattr(signal, name)
for name in (
    "fork", "forkpty", "killpg", "kill", "getuid", "geteuid", "getgid", "getpgid", "setsid", "mkfifo", "chown", "nice",
    "sched_getaffinity", "sysconf", "statvfs", "uname", "O_DIRECTORY", "O_NOFOLLOW", "register_at_fork", "getloadavg",
):
    delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None

shutil._use_fd_functions = False  # as there: it would open folders
opened, replaced, unlinked = os.open, pathlib.Path.replace, pathlib.Path.unlink

def open_no_folder(path, *rest, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, *rest, **named)

def refuse_in_use(path):
    if os.path.realpath(path) in pathlib.Path("/proc/self/maps").read_text():
        raise PermissionError(13, "Access is denied", str(path))

def replace_nothing_in_use(self, target):
    refuse_in_use(target)
    return replaced(self, target)

def unlink_nothing_in_use(self, missing_ok=False):
    refuse_in_use(self)
    return unlinked(self, missing_ok)

temporary_file = tempfile.NamedTemporaryFile

def opened_once(*rest, delete=True, **named):
    assert not delete, "a NamedTemporaryFile cannot be opened again before it is closed, and then it is gone"
    return temporary_file(*rest, delete=delete, **named)

os.open, tempfile.NamedTemporaryFile = open_no_folder, opened_once
pathlib.Path.replace, pathlib.Path.unlink = replace_nothing_in_use, unlink_nothing_in_use
"""


def on_windows(code: str, *arguments: object, folder: Path = ROOT, before: str = "") -> str:
    """What a script prints there; `before` runs with all that there is here."""
    script = textwrap.dedent(before) + WINDOWS + textwrap.dedent(code)
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mappings are looked up as on Linux")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return standin.write(tmp_path_factory.mktemp("windows") / "standin.safetensors")


def test_everything_imports():
    code = """
    import vc2
    names = [m.name for m in pkgutil.walk_packages(vc2.__path__, "vc2.") if not m.name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    print(len(names))
    """
    assert int(on_windows(code)) > 20


def test_the_command_line(model, tmp_path):
    """A clip, the same clip again, and the refusals."""
    code = """
    from vc2.__main__ import main
    command = ["a cat", "--frames", "2", "--size", "32x24", "--steps", "2", "--checkpoint", sys.argv[1], "-o"]
    for name in ("clip.mp4", "clip.png", "clip.webm"):
        assert main([*command, name]) == 0
    assert main([*command, "clip.mp4"]) == 2
    assert main([*command, "clip.mp4", "--overwrite"]) == 0
    """
    on_windows(f"sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(code), model, folder=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["clip.mp4", "clip.webm", "clip_00000.png", "clip_00001.png"]


def test_saving_over_a_file_that_is_mapped(model, tmp_path):
    """It is told, and the file stays; by another name it is saved. So is a LoRA that is merged into its own model."""
    code = """
    from pathlib import Path
    from vc2.files import checkpoint, lora
    from vc2.lora import main
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    loaded = checkpoint.load(path)
    for target in (path, folder / "new.safetensors", folder / "new.safetensors"):
        try:
            checkpoint.save(target, unet=loaded.unet, vae=loaded.vae, text=loaded.text, schedule=loaded.schedule)
            print("saved")
        except OSError as error:
            print(error)
    layer = "input_blocks.1.1.proj_in"
    change = torch.ones(lora.adapted_modules(loaded.config)[layer])
    torch.save({f"diffusion_model.{layer}.diff": change}, folder / "lora.pt")
    for target, *overwrite in ((path, "--overwrite"), (folder / "merged.safetensors",)):
        print(main([str(folder / "lora.pt"), str(target), "--model", str(path), "--merge", *overwrite]))
    """
    before = model.read_bytes()
    told, *rest = on_windows(code, model, tmp_path).splitlines()
    assert told.startswith(f"{model} cannot be replaced (Access is denied): it is in use")
    assert rest == ["saved", "saved", "2", "0"]
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]
    assert checkpoint.load(tmp_path / "new.safetensors").config == checkpoint.load(model).config


def test_a_spawned_process_reads_what_its_parent_does(model):
    """Windows has no fork."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(checkpoint.read_tensors, (model,))
    assert found.keys() == checkpoint.read_tensors(model).keys()
