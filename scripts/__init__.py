"""Developer tools: a real ComfyUI to drive, saved graphs without a browser, the demo, and what builds workflows/."""
