"""Measuring VideoCrafter2: the paper's metrics, people's votes, and the paper in miniature."""
