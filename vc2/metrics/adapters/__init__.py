"""Programs for `external.json` (see `vc2.metrics.external`), each run by its path, by a Python that has what it needs.
DOVER's and VBench's import nothing of this distribution, as that Python need not have it.
"""
