"""A line of text on the node that is running, and in the log where it is a warning.

Uses `comfy_execution.utils.get_executing_context`, and of the server `PromptServer.send_progress_text`; without them
there is the log.
"""

from __future__ import annotations

import logging

from comfy_execution.utils import get_executing_context

log = logging.getLogger(__name__)


def tell(text: str) -> None:
    """Show `text` on the running node, in the place of what was there."""
    running = get_executing_context()
    if running is None:
        return
    from server import PromptServer  # not before a node runs: elsewhere there may be no server to import

    PromptServer.instance.send_progress_text(text, running.node_id)


def warn(text: str) -> None:
    """What surprises but is no error: one line in the log, and the same on the running node."""
    log.warning(text)
    tell(text)
