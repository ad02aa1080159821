"""What is read and written: checkpoints, LoRA files, videos."""


class CheckpointError(ValueError):
    """A file that cannot be loaded; the message names the file, what was found, what was expected and what to do."""
