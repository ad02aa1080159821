"""The only place that touches what is inside ComfyUI, one subject a file."""
