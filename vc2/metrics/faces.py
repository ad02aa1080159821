"""Does a person keep their face?"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .frames import spread
from .metric import WEIGHTS, Clip, ClipMetric, Measure, NotApplicableError, file_hash

FRAMES = 8
RECOGNITION = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"


class Faces(ClipMetric):
    """dlib's face descriptors, of which two of one person lie within 0.6 of each other."""

    name = "faces"
    measures = (
        Measure("face_consistency", "cosine of each face's descriptor and the first one's, mean", "higher"),
        Measure(
            "face_distance", "distance of each face's descriptor to the first one's, mean: above 0.6 others", "lower"
        ),
        Measure("faces", "share of the frames looked at in which a face is found", "neither"),
    )
    table = "Table 1 (EvalCrafter: face consistency)"
    library = ("dlib-bin",)
    modules = ("dlib",)
    licence = "BSL-1.0; models CC0-1.0"
    extra = "evaluation-extra"
    file = RECOGNITION
    preprocessing = "8 frames, first to last; the largest frontal face (HOG), one enlargement below 400 pixels"
    warning = "frontal faces alone; clips without one have no such number, and frozen ones the best"

    def available(self) -> str | None:
        if importlib.util.find_spec("dlib") is None:
            return super().available()
        missing = [name for name in (RECOGNITION, LANDMARKS) if _model(name) is None]
        if missing:
            folder = os.environ.get(WEIGHTS)
            return f"{' and '.join(missing)} not in {folder or '--weights'} (or pip install face-recognition-models)"
        return None

    @property
    def weights_file(self) -> Path | None:
        return _model(RECOGNITION)

    @property
    def weights_hash(self) -> str | None:
        """Of both files: a face that is cut out in another way has another descriptor."""
        files = [path for name in (RECOGNITION, LANDMARKS) if (path := _model(name))]
        return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()

    @cached_property
    def _models(self) -> tuple[Any, Any, Any]:
        import dlib

        landmarks, recognition = dlib.shape_predictor(str(_model(LANDMARKS))), str(_model(RECOGNITION))
        return dlib.get_frontal_face_detector(), landmarks, dlib.face_recognition_model_v1(recognition)

    def descriptor(self, frame: np.ndarray) -> np.ndarray | None:
        """`[128]` of the largest face, None where there is none."""
        detector, landmarks, recognition = self._models
        frame = np.ascontiguousarray(frame)
        faces = detector(frame, int(min(frame.shape[:2]) < 400))
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.area())
        return np.array(recognition.compute_face_descriptor(frame, landmarks(frame, largest)))

    def measure(self, clip: Clip) -> dict[str, float]:
        frames = spread(FRAMES, clip.frames)
        found = [d for d in map(self.descriptor, frames) if d is not None]
        if len(found) < 2:
            raise NotApplicableError(f"it takes two faces, and {len(found)} of {len(frames)} frames have one")
        first, others = found[0], np.stack(found[1:])
        cosines = others @ first / (np.linalg.norm(others, axis=1) * np.linalg.norm(first))
        return {
            "face_consistency": float(cosines.mean()),
            "face_distance": float(np.linalg.norm(others - first, axis=1).mean()),
            "faces": len(found) / len(frames),
        }


def _model(name: str) -> Path | None:
    """In the user's folder, or in the package face-recognition-models, which cannot itself be imported everywhere."""
    places = [Path(folder) for folder in [os.environ.get(WEIGHTS)] if folder]
    spec = importlib.util.find_spec("face_recognition_models")
    if spec and spec.origin:
        places.append(Path(spec.origin).parent / "models")
    return next((place / name for place in places if (place / name).is_file()), None)
