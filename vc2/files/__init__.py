"""What is read and written: checkpoints, LoRA files, videos."""

import re

LONGEST_MESSAGE, LONGEST_WORD = 1000, 300


class CheckpointError(ValueError):
    """A file that cannot be loaded; the message names the file, what was found, what was expected and what to do.

    It is one line of printable characters whatever the file holds: the names in it are anyone's text.
    """

    def __init__(self, message: str):
        short = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: word[0][: LONGEST_WORD // 3] + "...", message)
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short[:LONGEST_MESSAGE])
        super().__init__(line + " ..." * (len(short) > LONGEST_MESSAGE))
