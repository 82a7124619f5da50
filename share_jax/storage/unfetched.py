"""What lies in a file's place when it was not fetched: a pointer of Git LFS or git-annex, or a server's page."""

import re

SIZE = 512
"""Bytes of a file's beginning that tell."""

_LFS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/", b"# xet version")


def stand_in(head: bytes) -> tuple[str, str] | None:
    r"""What the file is instead, and how to get the file; None where this is no such thing.

    Args:
        head: the file's first `SIZE` bytes, or all of it.

    >>> stand_in(b"version https://git-lfs.github.com/spec/v1\\noid sha256:00")
    ('a Git LFS pointer instead of the file', 'fetch the file itself (git lfs pull)')
    >>> stand_in(b'{"r": 4}') is None
    True
    """
    text = head[:SIZE].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_LFS):
        return "a Git LFS pointer instead of the file", "fetch the file itself (git lfs pull)"
    if text.startswith(b"/annex/objects/") or b".git/annex/objects/" in text[:64]:
        return "a git-annex pointer instead of the file", "fetch the file itself (git annex get)"
    if text[:64].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page instead of the file", "download the file itself, not the page that shows it"
    if text.startswith((b"Entry not found", b"Invalid username or password", b"Access to model", b"404: Not Found")):
        return "a server's refusal instead of the file", "download the file again, with the right to it"
    if re.fullmatch(rb"(?:\.\./)+[^\s]+", text.strip()):
        return "the text of a link instead of the file", "copy the folder again with its links followed (cp -rL)"
    return None
