"""Text between two markers of a page, which a script replaces; everything around it stays."""

from share_jax.errors import FormatError, message


def between(name: str, body: str) -> str:
    """A block with its markers.

    >>> between("a", "text").splitlines()
    ['<!-- a -->', '', 'text', '', '<!-- /a -->']
    """
    start, end = _markers(name)
    return f"{start}\n\n{body}\n\n{end}"


def marked(page: str, name: str) -> bool:
    """Whether a page has a block of this name."""
    return any(marker in page for marker in _markers(name))


def replaced(page: str, name: str, body: str, where: str) -> str:
    """The page with another body between the markers of a name.

    Args:
        page: the whole text.
        name: of the block.
        body: the new content.
        where: what the page is called.

    Raises:
        FormatError: the page does not have both markers once, in order.
    """
    start, end = _markers(name)
    counts = page.count(start), page.count(end)
    if counts != (1, 1) or page.index(start) > page.index(end):
        got = f"{counts[0]} of the first and {counts[1]} of the second" if counts != (1, 1) else "the second first"
        fix = "put the two lines back"
        raise FormatError(message(where, got=got, expected=f"{start} and then {end}, once each", fix=fix))
    return page[: page.index(start)] + between(name, body) + page[page.index(end) + len(end) :]


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"
