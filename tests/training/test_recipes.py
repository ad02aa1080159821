"""Recipes: the eleven rows are the paper's, twins match them, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from vc2.training.build import build_objective
from vc2.training.check import check
from vc2.training.data.batches import load_batches
from vc2.training.data.mixture import stream_of
from vc2.training.errors import RecipeError
from vc2.training.loop import Trainer
from vc2.training.matrix import matrix
from vc2.training.recipe import Recipe
from vc2.training.recipe_files import load_recipe
from vc2.training.recipe_sections import Sampling
from vc2.training.section import Section
from vc2.training.sources.kinds import KINDS
from vc2.training.sources.source import SourceError

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "training" / "recipes"
TINY = RECIPES / "tiny"
# Paper, Table 3: starts from, what learns, how, data.
TABLE = {
    "P-base": ("SD 2.1", "temporal", "direct", "WebVid + COCO"),
    "F-base": ("SD 2.1", "all", "direct", "WebVid + COCO"),
    "P-Spa-LORA": ("P-base", "spatial", "lora", "JDB"),
    "F-Spa-LORA": ("F-base", "spatial", "lora", "JDB"),
    "P-Temp-LORA": ("P-base", "temporal", "lora", "JDB"),
    "F-Temp-LORA": ("F-base", "temporal", "lora", "JDB"),
    "F-Spa-DIR": ("F-base", "spatial", "direct", "JDB"),
    "F-Temp-DIR": ("F-base", "temporal", "direct", "JDB"),
    "F-Spa-Temp-DIR": ("F-base", "all", "direct", "JDB"),
    "F-Spa-Temp-LORA": ("F-base", "all", "lora", "JDB"),
    "F-Spa-DIR-LAION": ("F-base", "spatial", "direct", "LAION-Aes"),
}


def named(folder: Path) -> dict[str, Recipe]:
    return {path.stem: load_recipe(path) for path in folder.glob("*.yaml") if not path.stem.startswith("_")}


def test_yaml_s_words_mean_what_they_say():
    recipe = load_recipe(
        TINY / "base.yaml",
        ["data.clips.prepared=no", "compute.gradient_checkpointing=yes", "optimizer.lr=1e-4", "data.crop=random"],
    )
    assert (recipe.data.clips.prepared, recipe.compute.gradient_checkpointing, recipe.optimizer.lr) == (
        "no",
        True,
        1e-4,
    )


@pytest.mark.parametrize("row", TABLE)
def test_every_row_of_table_3_has_its_recipe(row):
    start, part, how, data = TABLE[row]
    recipe = named(RECIPES)[row]
    assert (recipe.name, recipe.learn.part, recipe.learn.how) == (row, part, how)
    assert recipe.optimizer.lr == 5e-5
    assert recipe.optimizer.final_lr is None
    if row.endswith("base"):
        assert recipe.init.sd
        assert (recipe.batch, recipe.steps) == (128, 270_000)
        assert (recipe.data.width, recipe.data.height) == (512, 320)
        assert (recipe.data.clips.kind, recipe.data.images.kind) == ("webvid", "shards")
        assert recipe.diffusion.image_fps == (100, 100)
        assert recipe.image_share(16) == 1 / 16
    else:
        assert str(recipe.init.unet) == f"runs/{start}/model.safetensors"
        assert (recipe.batch, recipe.steps) == (256, 30_000)
        assert (recipe.data.width, recipe.data.height) == (512, 512)
        assert recipe.data.clips is None
        assert recipe.data.images.kind == {"JDB": "journeydb", "LAION-Aes": "shards"}[data]
        assert recipe.diffusion.image_fps == (4, 30)
    assert recipe.learn.rank == 16
    assert recipe.data.caption_dropout == 0.1
    assert recipe.diffusion.scale_end == 0.7
    assert (recipe.diffusion.noisy_share, recipe.diffusion.max_weight) == (0, 1)


@pytest.mark.parametrize("row", TABLE)
def test_every_row_has_a_twin_that_differs_in_size_alone(row):
    paper, twin = named(RECIPES)[row], named(TINY)[row]
    assert twin.name == f"tiny-{row}"
    assert twin.learn == paper.learn
    assert twin.image_only == paper.image_only
    assert str(twin.init.unet) == (
        f"runs/tiny-{paper.init.unet.parts[1]}/model.safetensors"
        if paper.init.unet
        else "runs/tiny-SD/model.safetensors"
    )


def test_a_row_shows_only_what_makes_it_different():
    for row in TABLE:
        tree = yaml.safe_load((RECIPES / f"{row}.yaml").read_text())
        assert set(tree) <= {"base", "name", "about", "init", "learn", "data"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lrate=1",
            r"unknown key optimizer\.lrate; did you mean optimizer\.lr\? \(the keys of optimizer are kind, lr, ",
        ),
        ("stepps=1", r"unknown key stepps; did you mean steps\? \(the keys of a recipe are name, about, "),
        ("optimiser.lr=1", r"unknown key optimiser; did you mean optimizer\?"),
        ("lr=1", r"unknown key lr; did you mean optimizer\.lr\? \(the keys of a recipe are name, "),
        ("compute.held_out=1", r"unknown key compute\.held_out; did you mean data\.held_out\?"),
        ("optimizer.xyz=1", r"unknown key optimizer\.xyz; the keys of optimizer are kind, lr, .* ema$"),
        ("steps.more.and=1", "steps holds a single value"),
        (
            "data.clips.flip=1",
            r"unknown key data\.clips\.flip; did you mean data\.flip\? \(the keys of data\.clips are ",
        ),
        ("steps=-1", "steps: .*greater than 0, found -1"),
        ("learn.part=space", "'spatial', 'temporal' or 'all', found 'space'"),
        ("data.clips.domian=clean", r"unknown key data\.clips\.domian; did you mean data\.clips\.domain\?"),
        ("data.clips={kind: webvd}", r"data\.clips\.kind: expected one of folder, webvid, .*found 'webvd'"),
        ("data.clips={path: x}", r"data\.clips\.kind: expected one of"),
        ("data.lengths=[[16, 8, 1]]", r"\[frames, smallest stride, largest stride\]"),
        ("data.width=60", r"data\.width: .*multiple of 8"),
        ("sampling.stepz=3", r"unknown key sampling\.stepz; did you mean sampling\.steps\?"),
        ("diffusion.image_fps=[30, 4]", r"diffusion\.image_fps: must be \[lowest, highest\]"),
        ("optimizer.betas=[0.9, 1.5]", r"optimizer\.betas: must be two numbers from 0 to below 1"),
        ("seed=4294967296", "seed: .*less than 2147483648"),
        ("learn.part=temporal", "a fresh UNet's output layer is zero and spatial"),
        ("learn.how=lora", "a fresh UNet's output layer is zero and spatial"),
        ("data.images={kind: webvid, csv: a, videos: b}", "webvid lists clips"),
        ("data.clips={kind: folder, path: a, prepared: moments}", "name one length, or prepared: no"),
        ("init.sd=a.safetensors", None),
        ("validation.quantiles=[1.5]", "from 0 to below 1"),
        ("steps", "not of the form key=value"),
        ("steps=[", "is not YAML"),
        ("steps.more=1", "steps holds a single value"),
        ("name=''", r"name: the run's folder below --runs is called so; expected a name such as my-style, found ''"),
        ("name=..", r"name: .* found '\.\.'"),
        ("name=/tmp/x", r"name: .* found '/tmp/x'"),
        ('name="a\\0b"', r"name: .* found 'a\\x00b'"),
        ("optimizer.lr=.inf", r"optimizer\.lr: .*finite number, found inf"),
        ("networks.unet={channel_mult: 5}", r"networks\.unet: channel_mult: .*valid tuple, found 5"),
        ("networks.unet.num_res_blocks=two", r"networks\.unet: num_res_blocks: .*valid integer.*, found 'two'"),
        ("networks.unet.bogus=1", r"networks\.unet: there is no bogus; the fields are in_channels, out_channels, "),
        (
            "networks.text.channel_mult=[1]",
            r"networks\.text: there is no channel_mult; the fields are context_length, ",
        ),
    ],
)
def test_errors_name_the_key(override, message):
    if message is None:
        with pytest.raises(RecipeError, match="unet and sd are both set"):
            load_recipe(TINY / "F-base.yaml", [override])
        return
    with pytest.raises(RecipeError, match=message):
        load_recipe(TINY / "base.yaml", [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "is not YAML"),
        ("- 1\n- 2", "holds a list"),
        ("steps: 1", "name: Field required"),
        ("base: 5", "base: expected the name of a file, such as _stage2.yaml, found 5"),
        ("base: [a.yaml]", r"base: expected the name of a file, .* found \['a\.yaml'\]"),
        ("name: \udcff", "is not YAML: .*can't decode byte 0xff"),
    ],
)
def test_what_is_no_recipe_is_said_to_be_none(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecipeError, match=rf"bad\.yaml.*{message}"):
        load_recipe(tmp_path / "bad.yaml")


def test_images_that_would_teach_nothing_are_refused():
    with pytest.raises(RecipeError, match="bypass leaves images nothing temporal to teach"):
        load_recipe(TINY / "P-base.yaml", ["diffusion.image_temporal=bypass"])


def test_recipes_inherit(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nsteps: 4\nbatch: 2\ndata: {clips: {kind: procedural, count: 5}}\noptimizer: {warmup: 2}\n"
    )
    (tmp_path / "row.yaml").write_text(
        "base: base.yaml\nname: row\noptimizer: {lr: 5e-1}\ndata: {clips: {kind: folder, path: x}}\n"
    )
    row = load_recipe(tmp_path / "row.yaml", ["seed=3"])
    assert (row.name, row.optimizer.lr, row.optimizer.warmup, row.seed) == ("row", 0.5, 2, 3)
    assert (row.data.clips.kind, row.data.clips.path) == ("folder", Path("x"))


def test_a_recipe_cannot_be_its_own_base(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(RecipeError, match="its own base"):
        load_recipe(tmp_path / "a.yaml")


def two_manifests(folder: Path) -> Recipe:
    """A recipe with every option of lists, their filters among them."""
    rows = [
        {"file": f"{n}.png", "text": f"photo {n}", "score": 5 + n, "mark": 0.1, "width": 64, "height": 48}
        for n in range(4)
    ]
    for row in rows:
        Image.new("RGB", (64, 48)).save(folder / row["file"])
    (folder / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    select = {"min_side": 32, "max_aspect": 2, "max_watermark": 0.5, "min_aesthetic": 5, "watermark": "mark"}
    source = {"kind": "manifest", "path": str(folder / "list.jsonl"), "root": str(folder), "file": "file"}
    source |= {"caption": "text", "select": {**select, "aesthetic": "score"}}
    data = {"images": [source, {**source, "weight": 2}], "width": 64, "height": 64, "buckets": [[96, 64]], "flip": 0.5}
    return Recipe.model_validate({"name": "listed", "steps": 2, "batch": 2, "data": {**data, "workers": 0}})


@pytest.mark.slow
def test_every_option_is_read(recipe, folder, tmp_path, monkeypatch):
    """One that nothing reads is a promise broken. Watched while recipes of every kind are checked, trained and listed;
    reading them does not count.
    """
    sampling = {"width": 64, "height": 64, "frames": 2, "steps": 1}
    samples = {"every": 2, "prompts": ["a red circle"]}
    whole = recipe(
        steps=2,
        log_every=1,
        validation={"every": 2},
        samples=samples,
        sampling=sampling,
        diffusion={"noisy_share": 1.0},
        optimizer={"warmup": 0},
    )
    adapted = recipe(name="adapted", steps=2, learn={"part": "spatial", "how": "lora", "rank": 2})
    distilled = recipe(name="distilled", objective="consistency", steps=2, learn={"part": "all"})
    miniature = [load_recipe(name) for name in ("tiny/autoencoder", "tiny/text", "paper/autoencoder")]
    absent = tmp_path / "absent"
    sources = [
        KINDS["folder"](kind="folder", path=absent),
        KINDS["webvid"](kind="webvid", csv=absent, videos=tmp_path),
        KINDS["journeydb"](kind="journeydb", jsonl=absent, images=tmp_path),
        KINDS["shards"](kind="shards", path="absent"),
    ]
    listed = two_manifests(tmp_path)
    read, plain = set(), object.__getattribute__

    def watch(self, name):
        read.add((type(self), name))
        return plain(self, name)

    monkeypatch.setattr(Section, "__getattribute__", watch)
    monkeypatch.setattr("vc2.training.sources.source.ENOUGH", 1)
    for settings in (whole, adapted, distilled):
        list(check(settings, folder.parent / "cache"))
        Trainer(settings, folder.parent / settings.name).run()
    for settings in miniature:
        build_objective(settings, tmp_path, torch.device("cpu"))
    for source in sources:
        with pytest.raises(SourceError):
            source.open("images", tmp_path)
    batches = load_batches(listed, {"images": stream_of(listed, "images", tmp_path)}, 0, 0, 1, pin=False)
    assert next(batches).captions
    monkeypatch.undo()

    def below(section):
        return [section, *(cls for sub in section.__subclasses__() for cls in below(sub))]

    # What a kind is decides which class it is; sampling is handed on whole, and its names are compared with those of
    # Settings elsewhere.
    options = {
        (cls, name)
        for cls in below(Section)
        if cls is not Sampling
        for name in cls.__annotations__
        if name in cls.model_fields and name != "kind"
    }
    assert len(options) > 60
    unread = [f"{cls.__name__}.{name}" for cls, name in options if not any((sub, name) in read for sub in below(cls))]
    assert not unread


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "vc2.training", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_missing_start_is_one_line_not_a_traceback(tmp_path):
    result = run(
        "run",
        str(TINY / "base.yaml"),
        "--runs",
        str(tmp_path),
        "init.text=absent.safetensors",
        "init.autoencoder=absent.safetensors",
    )
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == "error: absent.safetensors: no such checkpoint file"


def test_the_matrix_has_a_line_a_recipe(tmp_path):
    for name in ("F-Spa-LORA", "text"):
        (tmp_path / f"{name}.yaml").write_text(f"base: {TINY / name}.yaml\n")
    lines = matrix(tmp_path)
    assert [line.split()[0] for line in lines[2:]] == ["tiny-F-Spa-LORA", "tiny-text"]
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
    with pytest.raises(RecipeError, match="G-base: no such recipe"):
        load_recipe("G-base")
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
    for folder, names in ((RECIPES, ["F-base", "your-images"]), (TINY, ["tiny-F-base", "tiny-text"])):
        command = [sys.executable, "-c", code, "recipes", *(["tiny"] if folder == TINY else [])]
        *lines, file = subprocess.check_output(command, cwd=tmp_path / "installed", text=True).splitlines()
        assert Path(file).is_relative_to(tmp_path / "installed")
        assert len(lines) == 2 + len(named(folder))
        assert set(names) <= {line.split()[0] for line in lines}
