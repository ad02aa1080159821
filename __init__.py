"""ComfyUI's door to the pack."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by the host. The import is inside so that tools which import this folder need no ComfyUI."""
    from .nodes import VideoCrafter2

    return VideoCrafter2()
