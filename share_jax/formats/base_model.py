"""Which base model an adapter names: a repository, by whatever path of a cache, or a folder by its whole path."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.storage.untrusted import shown

_SNAPSHOT = re.compile(r"(?:.*[\\/])?models--([^\\/]+)[\\/]+snapshots[\\/]+[^\\/]+[\\/]*", re.DOTALL)
KEY = "base_model_name_or_path"


def base_model(config: Mapping[str, Any], label: str) -> str | None:
    """The base model's name; None where the configuration names none.

    Raises:
        FormatError: it is there and no text.
    """
    name = config.get(KEY)
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise FormatError(message(f"{label} {KEY}", got=shown(repr(name), 60), expected="text", fix="correct the file"))
    return repository_of(name)


def repository_of(name: str) -> str:
    """The repository whose snapshot in a Hugging Face cache the path is; else the name as it is.

    >>> repository_of("/root/hub/models--acme--tiny/snapshots/0123"), repository_of("/data/tiny/2")
    ('acme/tiny', '/data/tiny/2')
    """
    match = _SNAPSHOT.fullmatch(name)
    return match[1].replace("--", "/", 1) if match else name


def same_base(first: str | None, second: str | None) -> bool:
    """Whether two names are of one base model: one repository, or one path.

    >>> same_base("acme/Tiny", "acme/tiny"), same_base("/data/a/2", "/data/b/2"), same_base("/data/a/", "/data//a")
    (True, False, True)
    """
    return _identity(first) == _identity(second)


def _identity(name: str | None) -> str | None:
    if name is None:
        return None
    plain = re.sub(r"[\\/]+", "/", repository_of(name))
    plain = plain if plain == "/" else plain.rstrip("/")
    while plain.startswith("./"):
        plain = plain[2:]
    return plain if is_path(plain) else plain.casefold()


def is_path(name: str) -> bool:
    """Whether the name is a place on some machine, and no repository.

    >>> is_path("acme/tiny"), is_path("/data/tiny"), is_path("C:/tiny")
    (False, True, True)
    """
    return (
        name.startswith(("/", "~", "\\", ".")) or re.match(r"[A-Za-z]:[\\/]", name) is not None or name.count("/") > 1
    )


def stored_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as a set stores it: every key as it was; a snapshot of a cache is named by its repository."""
    out = dict(config)
    name = out.get(KEY)
    if isinstance(name, str) and name:
        out[KEY] = repository_of(name)
    return out


def with_base(sources: Sequence[Source], given: str | None) -> list[Source]:
    """The sources as adapters of the given base model, whatever they say; as they are where none is given."""
    if given is None:
        return list(sources)
    return [replace(each, base_model=given, config={**each.config, KEY: given}) for each in sources]


def common_base(sources: Sequence[Source], given: str | None = None, known: Sequence[str | None] = ()) -> str | None:
    """The base model that all sources name, or None where none of them names one.

    Args:
        sources: at least one; see `with_base`.
        given: the base model of a set that names none.
        known: what the set names, None if it has tasks and names none; empty where there is no set yet.

    Raises:
        InputError: two of them differ, or one names a base model and another none.
    """
    named = [("the set", name or given) for name in known]
    named += [(source.label, source.base_model) for source in sources]
    by, base = named[0]
    for label, own in named[1:]:
        if not same_base(own, base):
            name = base or own or ""
            raise InputError(
                message(f"{label} base model", got=shown(own or "no name"),
                     expected=f"{shown(base or 'no name')} as {shown(by)}",
                     fix="compress adapters of one base model, or, if these are of one, say so: "
                         f"--base-model {shown(name, 80) if name.isprintable() and ' ' not in name else 'NAME'}")
            )  # fmt: skip
    return base
