"""Numbers of things, as people say them."""


def counted(number: int, thing: str) -> str:
    """Returns a number with a thing whose plural takes an s, such as "1 thread" and "2 cores"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
