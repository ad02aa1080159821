"""The only place that touches what is inside ComfyUI, one subject a file; each says what it uses and what to do when it
goes. Imports go one way: space, hooks, flags <- model <- windows <- loading, guidance, samplers, run.
"""
