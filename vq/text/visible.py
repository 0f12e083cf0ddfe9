"""Names and paths as people may see them: each as it is, but nothing that moves a cursor."""

__all__ = ["visible"]


def visible(text: str) -> str:
    r"""A text on one line: what would not show, or move the cursor, becomes Python's escape.

    Examples
    --------
    >>> print(visible("a[q]\n\x1b[2J"))
    a[q]\n\x1b[2J
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
