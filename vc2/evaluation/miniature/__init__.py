"""The paper in miniature: `python -m vc2.evaluation.miniature`."""
