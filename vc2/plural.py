"""How many there are, in words."""


def plural(number: int, noun: str) -> str:
    """'1 tar', '2 tars', '60,000 tars'."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
