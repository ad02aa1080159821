"""Inception score, FID and KID of single frames, by torch-fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .frames import best_device, spread
from .metric import Clip, CorpusMetric, Measure

FRAMES = 8
SUBSETS, SUBSET = 100, 1000  # of KID, as its authors have them; smaller where there are fewer frames


class Inception(CorpusMetric):
    library = ("torch-fidelity",)
    modules = ("torch_fidelity",)
    extra = "evaluation-extra"
    file = "weights-inception-2015-12-05-6726825d.pth"
    preprocessing = "8 frames, first to last; 299x299 as TensorFlow 1 resized"
    layer: str

    @property
    def extractor(self) -> str:  # type: ignore[override]
        return f"inception {self.layer}"

    @cached_property
    def _network(self) -> torch.nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # It unpickles whatever is in the file; what torch refuses to load as weights alone never comes there.
        torch.load(self.needed_file, map_location="cpu", weights_only=True)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", [self.layer], feature_extractor_weights_path=str(self.needed_file)
        ).to(best_device())

    @torch.no_grad()
    def features(self, clip: Clip) -> np.ndarray:
        frames = torch.from_numpy(np.ascontiguousarray(spread(FRAMES, clip.frames))).permute(0, 3, 1, 2)
        return self._network(frames.to(best_device()))[0].cpu().numpy()


def _all(features: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(features))


class InceptionScore(Inception):
    name = "inception_score"
    measures = (Measure("inception_score", "inception score of the frames, mean of ten splits", "higher"),)
    table = "Table 1 (EvalCrafter: IS)"
    least = 64
    layer = "logits_unbiased"
    warning = "variety of ImageNet's classes, not quality; 8 frames of a clip are hardly more than one"

    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

        return {"inception_score": isc_features_to_metric(_all(features))[KEY_METRIC_ISC_MEAN]}


class FID(Inception):
    name = "fid"
    measures = (Measure("fid", "Frechet distance of the frames' features to the reference's", "lower"),)
    least = 256
    needs_reference = True
    layer = "2048"
    warning = "of pictures alone; with fewer frames than features (2048) it is far too large: prefer `kid`"

    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

        statistics = [fid_features_to_statistics(_all(some)) for some in (features, reference)]
        return {"fid": fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]}


class KID(Inception):
    name = "kid"
    measures = (Measure("kid", "kernel distance of the frames' features to the reference's", "lower"),)
    warning = "of pictures alone; the 8 frames of a clip count as if they were of eight"
    least = 16
    needs_reference = True
    layer = "2048"

    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        ours, theirs = _all(features), _all(reference)
        size = min(SUBSET, len(ours), len(theirs))
        figures = kid_features_to_metric(
            ours, theirs, kid_subsets=SUBSETS, kid_subset_size=size, verbose=False, rng_seed=2020
        )
        return {"kid": figures[KEY_METRIC_KID_MEAN]}
