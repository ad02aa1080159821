"""Where the time goes that ComfyUI takes to load a checkpoint with this pack, in a process of its own.

python -m bench.loading FILE
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from scripts.comfyui import ROOT, comfyui_tree
from tests.host.inside import import_pack


class Cost(NamedTuple):
    """Seconds of the processor in programs and in the system, and how often that was asked for a page of memory."""

    user: float
    system: float
    faults: int

    @classmethod
    def so_far(cls) -> Cost:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(usage.ru_utime, usage.ru_stime, usage.ru_minflt)

    def since(self, earlier: Cost) -> Cost:
        return Cost(self.user - earlier.user, self.system - earlier.system, self.faults - earlier.faults)

    def plus(self, other: Cost) -> Cost:
        return Cost(self.user + other.user, self.system + other.system, self.faults + other.faults)


def stages(file: Path) -> dict[str, Cost]:
    """What a checkpoint's three networks cost, by what it goes into."""
    import_pack(str(comfyui_tree()), str(ROOT))
    from pack.nodes.host import loading
    from pack.vc2.files import checkpoint

    copying, load_state_dict = Cost(0, 0, 0), torch.nn.Module.load_state_dict

    def timed(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal copying
        began = Cost.so_far()
        found = load_state_dict(self, *args, **kwargs)
        copying = copying.plus(Cost.so_far().since(began))
        return found

    def cost(work: Callable[[], Any]) -> tuple[Any, Cost]:
        began = Cost.so_far()
        return work(), Cost.so_far().since(began)

    loaded, checking = cost(lambda: checkpoint.load(file))
    with patch.object(torch.nn.Module, "load_state_dict", timed):
        parts = (loading.load_model, loading.load_clip, loading.load_vae)
        _, made = cost(lambda: [part(loaded) for part in parts])
    return {
        "names, shapes, and every number found finite": checking,
        "networks built": made.since(copying),
        "numbers copied into them": copying,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("file", type=Path)
    print(json.dumps(stages(parser.parse_args().file)))


if __name__ == "__main__":
    main()
