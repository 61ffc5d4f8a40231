"""What is said in one line of an error that fills many."""

_TRACEBACK = "Traceback (most recent call last):"


def headline(error: str) -> str:
    """The first line of an exception, which begins with its type, out of a traceback; of any other text its first.

    A message may have lines of its own, so that the last line of a traceback can be one item of a list.
    """
    lines = error.strip().splitlines()
    starts = [index for index, line in enumerate(lines) if line == _TRACEBACK]
    if starts:  # of errors that led to one another the last one is what ended the call; its stack is indented
        lines = [line for line in lines[starts[-1] + 1 :] if line and not line[0].isspace()] or lines
    return lines[0] if lines else ""
