"""Metrics of programs that users have in environments of their own: DOVER, SD score, VBench, ...

Which program is in `external.json` in the folder of weights, a command each:

    {"dover": ["/opt/dover/bin/python", "/opt/dover/adapter.py"]}

It is started once for all clips, and speaks JSON, a line at a time, over standard input and output (what it prints
elsewhere goes to standard error). First it says what it is:

    {"implementation": "DOVER 1.0", "weights": "SHA-256 of its file", "preprocessing": "one line"}

Then it reads a line a clip, and answers each with a line, an error being that clip's alone:

    {"clip": "/path/of/clip.mp4", "prompt": "a panda playing guitar"}
    {"values": {"dover.technical": 61.2, "dover.aesthetic": 48.0}}  or  {"error": "why not"}

It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files.video import write_video
from .metric import WEIGHTS, Clip, ClipMetric, Measure

COMMANDS = "external.json"


class External(ClipMetric):
    def __init__(self, name: str, measures: tuple[Measure, ...], licence: str, table: str = "", warning: str = ""):
        self.name, self.measures, self.licence, self.table, self.warning = name, measures, licence, table, warning

    @property
    def command(self) -> list[str] | None:
        """Raises ValueError where `external.json` does not name commands."""
        folder = os.environ.get(WEIGHTS)
        path = Path(folder, COMMANDS) if folder else None
        if path is None or not path.is_file():
            return None
        try:
            command = json.loads(path.read_text(encoding="utf-8")).get(self.name)
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} must be a JSON object of commands ({error})") from error
        if command is not None and not (isinstance(command, list) and all(isinstance(word, str) for word in command)):
            raise ValueError(f'{path}: {self.name} must be a list such as ["python", "adapter.py"], found {command!r}')
        return command

    def available(self) -> str | None:
        try:
            command = self.command
        except ValueError as error:
            return str(error)
        if not command:
            return f"no command for {self.name} in {COMMANDS} in the folder of --weights"
        return None if shutil.which(command[0]) else f"{command[0]}, of {COMMANDS}, is no program"

    @cached_property
    def _program(self) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """The program, and what it says it is."""
        command = self.command
        if not command:
            raise RuntimeError(f"{self.name}: {self.available()}")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        about = self._answer(process)
        if missing := {"implementation", "weights", "preprocessing"} - about.keys():
            raise RuntimeError(f"{self.name}: the program's first line lacks {', '.join(sorted(missing))}: {about}")
        return process, about

    @property
    def implementation(self) -> str:
        return f"{self._program[1]['implementation']} ({self.name} of {COMMANDS})"

    @property
    def weights_hash(self) -> str | None:
        return self._program[1]["weights"]

    @property
    def preprocessing(self) -> str:  # type: ignore[override]
        return self._program[1]["preprocessing"]

    def measure(self, clip: Clip) -> Mapping[str, float]:
        process, _ = self._program
        with tempfile.TemporaryDirectory() as folder:
            # A control has no file. Nothing is lost but the chroma that mp4 has at half the size.
            path = clip.path or write_video(Path(folder, "clip.mp4"), list(clip.frames), clip.fps, crf=0)
            answer = self._ask(process, {"clip": str(path.absolute()), "prompt": clip.prompt})
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        values = answer.get("values")
        if not isinstance(values, dict) or not values.keys() <= set(self.measure_names()):
            raise RuntimeError(f"{self.name}: expected values of {', '.join(self.measure_names())}, found {answer}")
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values.values()):
            raise RuntimeError(f"{self.name}: expected finite numbers, found {values}")
        return {name: float(value) for name, value in values.items()}

    def _ask(self, process: subprocess.Popen[str], question: dict[str, str]) -> dict[str, Any]:
        assert process.stdin
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except OSError as error:
            raise RuntimeError(f"{self.name}: the program ended with status {process.wait()}") from error
        return self._answer(process)

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the program ended with status {process.wait()}")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RuntimeError(f"{self.name}: the program must answer with a JSON object a line, found {line[:100]!r}")
        return answer

    def close(self) -> None:
        """End the program, by ending what it reads."""
        if "_program" not in self.__dict__:
            return
        process, _ = self.__dict__.pop("_program")
        with contextlib.suppress(OSError):  # it has ended already
            process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _one(name: str, about: str, licence: str) -> External:
    return External(name, (Measure(name, about, "higher"),), licence, "Table 1 (EvalCrafter)")


DIMENSIONS = (
    *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree"),
    *("aesthetic_quality", "imaging_quality", "object_class", "multiple_objects", "human_action", "color"),
    *("spatial_relationship", "scene", "temporal_style", "appearance_style", "overall_consistency"),
)
EXTERNAL = (
    External(
        "dover",
        (
            Measure(
                "dover.technical", "technical quality, 100 x sigmoid of the head standardised by DOVER's own", "higher"
            ),
            Measure("dover.aesthetic", "aesthetic quality, likewise", "higher"),
            Measure("dover.evalcrafter_technical", "technical quality standardised by EvalCrafter's", "higher"),
            Measure("dover.evalcrafter_aesthetic", "aesthetic quality, likewise", "higher"),
        ),
        "S-Lab, non-commercial",
        "Table 3; Table 1 (EvalCrafter: VQA_T, VQA_A)",
        "the paper does not say by which mean and deviation it standardised: name them, and compare with one of them",
    ),
    _one("sd_score", "CLIP cosine of frames and pictures of Stable Diffusion for the prompt, 0 to 1", "see its model"),
    _one("blip_bleu", "BLEU of BLIP-2's captions against the prompt, 0 to 1", "see its model"),
    _one("detection_score", "share of the prompt's objects that are detected", "see its model"),
    _one("colour_score", "share of the prompt's colours that are found on their objects", "see its model"),
    _one("count_score", "agreement of the counted objects with the prompt's number", "see its model"),
    External(
        "ocr_score",
        (Measure("ocr_score", "error rate of text that the prompt asks for, 0 to 1", "lower"),),
        "see its model",
    ),
    External(
        "celebrity_score",
        (Measure("celebrity_score", "distance of faces to pictures of the person that the prompt names", "lower"),),
        "see its model",
    ),
    _one(
        "motion_amplitude",
        "agreement of the flow's size with the prompt's words (EvalCrafter's motion AC)",
        "its model",
    ),
    External(
        "vbench",
        tuple(Measure(f"vbench.{name}", f"VBench's {name.replace('_', ' ')}", "higher") for name in DIMENSIONS),
        "Apache-2.0; models of many",
        "",
        "VBench pins transformers 4.33 and numpy below 2, and downloads: give it an environment of its own",
    ),
)
