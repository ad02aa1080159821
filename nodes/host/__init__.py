"""The only place that touches what is inside ComfyUI, one subject a file.

Each says what it uses and what to do when that goes. Imports go one way: space, hooks, flags <- model, checks <-
windows <- loading, guidance, samplers, run.
"""
