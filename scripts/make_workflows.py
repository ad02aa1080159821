"""Build workflows/*.json, the graphs that people drag onto the canvas, their catalogue, the blueprint and the pictures.

The pictures are a thumbnail of what each graph makes, and docs/graph.png.
"""

from __future__ import annotations

import argparse
import json

from .blueprint import write_blueprint
from .catalogue import write_catalogue
from .client import Client
from .comfyui import Server
from .graphs import FOLDER, QUICKSTART, WORKFLOWS
from .layout import to_ui
from .picture import graph_picture
from .thumbnails import make_thumbnails


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.make_workflows", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, which are {', '.join(WORKFLOWS)}")
    parser.add_argument("--no-thumbnails", action="store_true", help="write the graphs without running them")
    args = parser.parse_args()
    if unknown := set(args.names) - set(WORKFLOWS):
        parser.error(f"no workflow called {', '.join(sorted(unknown))}; there are {', '.join(WORKFLOWS)}")
    names = args.names or list(WORKFLOWS)
    with Server(cpu=True) as server:
        object_info = Client(server.url).object_info()
        for name in names:
            workflow = to_ui(name, WORKFLOWS[name](), object_info)
            path = FOLDER / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_blueprint(object_info)
        write_catalogue()
        if not args.no_thumbnails:
            make_thumbnails(server, names)
            if QUICKSTART in names:
                graph_picture(server)


if __name__ == "__main__":
    main()
