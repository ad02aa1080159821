"""Measuring VideoCrafter2: the judge of the miniature's world, and (later) the paper's metrics."""
