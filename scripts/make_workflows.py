"""Build workflows/*.json, the graphs that people drag onto the canvas, and a thumbnail of what each makes."""

from __future__ import annotations

import argparse
import json

from .client import Client
from .comfyui import Server
from .graphs import FOLDER, WORKFLOWS
from .layout import to_ui
from .thumbnails import make_thumbnails


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.make_workflows", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, which are {', '.join(WORKFLOWS)}")
    parser.add_argument("--no-thumbnails", action="store_true", help="write the graphs without running them")
    args = parser.parse_args()
    if unknown := set(args.names) - set(WORKFLOWS):
        parser.error(f"no workflow called {', '.join(sorted(unknown))}; there are {', '.join(WORKFLOWS)}")
    with Server(cpu=True) as server:
        object_info = Client(server.url).object_info()
        made = {name: to_ui(name, WORKFLOWS[name](), object_info) for name in args.names or WORKFLOWS}
        for name, workflow in made.items():
            (FOLDER / f"{name}.json").write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n")
        if not args.no_thumbnails:
            make_thumbnails(server, made, FOLDER)


if __name__ == "__main__":
    main()
