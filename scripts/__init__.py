"""Developer tools: a real ComfyUI to drive (`comfyui`, `client`), saved graphs without a browser (`workflow`), and the
demo.
"""
