"""Which process of pytest-xdist runs which tests, and in what order."""

from __future__ import annotations

from functools import cached_property

from xdist.scheduler import LoadFileScheduling

COMFYUI = ("tests/host/", "tests/browser/")
# By how long they take, longest first (`--durations=0`); those that are not here are quick.
LONGEST = (
    "tests/training/test_resume.py",
    "tests/training/test_distributed.py",
    "tests/vc2/test_hostile.py",
    "tests/training/test_cost.py",
    "tests/training/test_twins.py",
    "tests/training/test_media.py",
    "tests/training/test_history.py",
    "tests/training/test_failures.py",
    "tests/vc2/test_odd_checkpoints.py",
    "tests/training/test_loop.py",
    "tests/training/test_check.py",
    "tests/training/test_export.py",
    "tests/training/test_prepare.py",
    "tests/training/test_start.py",
    "tests/training/test_outputs.py",
    "tests/vc2/test_prompt_files.py",
    "tests/vc2/test_pipeline.py",
    "tests/vc2/test_command_line.py",
    "tests/training/test_scale.py",
)


def rank(nodeid: str) -> int:
    """What runs first: a long file that is begun last leaves the other processes idle."""
    file = nodeid.partition("::")[0]
    if file.startswith(COMFYUI):
        return -1
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


class Scheduling(LoadFileScheduling):
    """A file's tests are run by one process, in the order of `rank`. Of two processes, one runs all that speak to
    ComfyUI, whose servers it so starts once; the other has enough to do meanwhile, unless there is nothing else.
    """

    @cached_property
    def one_for_comfyui(self) -> bool:
        return self.numnodes == 2 and not all(nodeid.startswith(COMFYUI) for nodeid in self.collection or ())

    def _split_scope(self, nodeid: str) -> str:
        if self.one_for_comfyui and nodeid.startswith(COMFYUI):
            return "ComfyUI"
        return super()._split_scope(nodeid)
