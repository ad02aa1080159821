"""How a workflow is described: nodes by name, their values and links, the group that each stands in, and a note."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

TINY, OFFICIAL, TURBO, VADER = (
    "vc2-tiny.safetensors",
    "model.ckpt",
    "unet_lora.pt",
    "vader_videocrafter_pickscore.pt",
)
TINY_TURBO = "vc2-tiny-turbo.safetensors"  # TINY's, as TURBO is OFFICIAL's; `scripts.bundle` makes it
# Of the paper in miniature, which `scripts.paper_models` makes.
PAPER_BASE = "paper-F-base.safetensors"
PAPER_MODELS = {name: f"paper-{name}.safetensors" for name in ("F-Spa-LORA", "F-Temp-LORA", "F-Spa-DIR")}
# What a user's own training of the paper's rows made, by the names that the graph asks to copy it to.
TRAINED_BASE, TRAINED_LORA, TRAINED_DIRECT = (f"{name}.safetensors" for name in ("f-base", "f-spa-lora", "f-spa-dir"))
HUB = "https://huggingface.co"
# Where the front end offers to fetch weights that are missing: folder of `models/`, address.
DOWNLOADS = {
    OFFICIAL: ("checkpoints", f"{HUB}/VideoCrafter/VideoCrafter2/resolve/main/{OFFICIAL}"),
    TURBO: ("loras", f"{HUB}/jiachenli-ucsb/T2V-Turbo-VC2/resolve/main/{TURBO}"),
    VADER: ("loras", f"{HUB}/zheyangqin/VADER_VideoCrafter_PickScore/resolve/main/{VADER}"),
}
PANDA = "a panda playing the guitar by a campfire in a bamboo forest, cinematic lighting, highly detailed"
OFFICIAL_SETTINGS: dict[str, Any] = {"seed": 1, "steps": 50, "guidance": 12.0, "eta": 1.0, "denoise": 1.0}
PROMPT_TITLE = "Prompt"

Link = tuple[str, int]


class Place(NamedTuple):
    """Where nodes stand: a titled group in a column, below what is in that column already, or from `top` on, in
    pixels."""

    group: str
    column: int
    top: int | None = None


class Node(NamedTuple):
    """A node of a graph. An input that is a pair (node, output slot) is a link, anything else a widget's value."""

    kind: str
    title: str | None
    place: Place
    inputs: dict[str, Any]


class Graph:
    """The nodes of a workflow, in the order in which they run.

    `note` is Markdown; `note_at` is its first and last column and its top in pixels, None: below what stands there.
    `app` names the widgets, as (node, widget), that app mode shows, `unfolded` the nodes that show their rarer widgets
    from the start.
    """

    def __init__(self, note: str, note_at: tuple[int, int, int | None] = (3, 4, None)) -> None:
        self.note, self.note_at = note, note_at
        self.nodes: dict[str, Node] = {}
        self.app: list[tuple[str, str]] = []
        self.unfolded: set[str] = set()
        self._place = Place("", 0)

    @contextmanager
    def group(self, title: str, column: int, top: int | None = None) -> Iterator[None]:
        """Nodes added meanwhile stand in this group and column."""
        before, self._place = self._place, Place(title, column, top)
        yield
        self._place = before

    def add(self, name: str, kind: str, title: str | None = None, /, **inputs: Any) -> Link:
        self.nodes[name] = Node(kind, title, self._place, inputs)
        return (name, 0)

    def checkpoint(self, name: str = OFFICIAL, top: int | None = None) -> tuple[Link, Link, Link]:
        """Its MODEL, CLIP and VAE."""
        with self.group("1 Load", 0, top):
            self.add("load", "VC2LoadCheckpoint", ckpt_name=name, weight_dtype="default")
        return ("load", 0), ("load", 1), ("load", 2)

    def latent(self, frames: int = 16, size: tuple[int, int] = (512, 320)) -> Link:
        with self.group("2 Size", 0):
            return self.add("latent", "VC2EmptyLatentVideo", width=size[0], height=size[1], frames=frames, clips=1)

    def prompt(self, clip: Link, text: str = PANDA) -> Link:
        with self.group("3 Prompt", 1):
            return self.add("prompt", "CLIPTextEncode", PROMPT_TITLE, clip=clip, text=text)

    def prompts(self, clip: Link, text: str = PANDA) -> dict[str, Link]:
        """A sampler's positive and negative prompt."""
        return {"positive": self.prompt(clip, text), "negative": self.negative(clip)}

    def negative(self, clip: Link) -> Link:
        with self.group("3 Prompt", 1):
            return self.add("negative", "CLIPTextEncode", "Negative prompt", clip=clip, text="")

    def patch(self, title: str, name: str, kind: str, /, model: Link, **inputs: Any) -> Link:
        """A node between the loader and the sampler, in a group of its own."""
        with self.group(title, 1):
            return self.add(name, kind, model=model, **inputs)

    def sample(self, kind: str, title: str = "4 Sample", /, **inputs: Any) -> Link:
        with self.group(title, 2):
            return self.add("sampler", kind, **inputs)

    def sampled(self, model: Link, clip: Link, latent: Link, prompt: str = PANDA, **changes: Any) -> Link:
        """Prompts and our sampler, with the official settings but for `changes`."""
        settings = OFFICIAL_SETTINGS | changes
        return self.sample("VC2Sampler", model=model, latent=latent, **self.prompts(clip, prompt), **settings)

    def saved(self, latent: Link, vae: Link, top: int | None = None, **inputs: Any) -> None:
        with self.group("5 Save", 3, top):
            images = self.add("decode", "VAEDecode", samples=latent, vae=vae)
        self.save(images, 4, top, **inputs)

    def save(self, images: Link, column: int, top: int | None = None, **inputs: Any) -> None:
        settings = {"fps": 10.0, "filename_prefix": "video/vc2", "format": "mp4"} | inputs
        with self.group("5 Save", column, top):
            self.add("save", "VC2SaveVideo", images=images, **settings)
