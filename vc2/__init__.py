"""VideoCrafter2: the model, its sampler, its training and its evaluation. Nothing here knows that ComfyUI exists."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("comfyui-videocrafter2")
except PackageNotFoundError:
    __version__ = "unknown"  # a checkout that was not installed, such as one in ComfyUI's custom_nodes
