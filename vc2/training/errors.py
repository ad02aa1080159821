"""What a person who trains can put right; `python -m vc2.training` shows such an error as one line."""


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says what happened and what to do."""


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the key, what was expected and what was found."""
