"""Names of tasks: the folders' own, with parents where two are alike, or given ones."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from share_jax.errors import InputError, TaskError, message
from share_jax.formats.adapter_file import Source
from share_jax.storage.untrusted import check_task_name, shown


def named(places: Sequence[Path], opened: Sequence[list[Source]], given: Sequence[str] | None) -> list[Source]:
    """All sources, each with a name of its own.

    Args:
        places: the folders or files.
        opened: the sources of each.
        given: a name for each place, which then holds one task; None for the places' own names.

    Raises:
        InputError: there are not as many names as places, or a place holds several tasks.
        TaskError: a place is there twice, or a name is not safe.
    """
    if given is not None:
        return _given(places, opened, given)
    taken: dict[str, list[tuple[str, ...]]] = {}
    all_parts = []
    for place, sources in zip(places, opened, strict=True):
        for source in sources:
            parts = Path(os.path.abspath(place)).parts
            parts = (*parts[:-1], source.name) if len(sources) == 1 else (*parts, source.name)
            all_parts.append((source, parts))
            taken.setdefault(source.name, []).append(parts)
    return [_renamed(source, _own_name(parts, taken[source.name])) for source, parts in all_parts]


def check_free(sources: Iterable[Source], taken: Iterable[str]) -> None:
    """Refuses names that are there twice, or not free.

    Raises:
        TaskError: naming one.
    """
    seen = set(taken)
    for source in sources:
        if source.name in seen:
            raise TaskError(
                message(f"task {shown(source.name)}", got="a name that exists", expected="a new name",
                     fix="rename the folder, or name the tasks (--name)")
            )  # fmt: skip
        seen.add(source.name)


def _given(places: Sequence[Path], opened: Sequence[list[Source]], given: Sequence[str]) -> list[Source]:
    if len(given) != len(places):
        raise InputError(
            message("--name", got=len(given), expected=f"{len(places)}, one per folder", fix="give as many")
        )
    for place, sources in zip(places, opened, strict=True):
        if len(sources) != 1:
            raise InputError(
                message(f"--name of {shown(place)}", got=f"a folder of {len(sources)} tasks", expected="one task",
                     fix="leave --name out: its tasks have names")
            )  # fmt: skip
    return [_renamed(sources[0], check_task_name(name)) for sources, name in zip(opened, given, strict=True)]


def _own_name(parts: tuple[str, ...], alike: Sequence[tuple[str, ...]]) -> str:
    """The name, with as many parents before it as tell it from the others of that name; as it is if none do."""
    others = list(alike)
    others.remove(parts)
    if not others or parts in others:
        return parts[-1]
    for count in range(2, len(parts) + 1):
        if all(other[-count:] != parts[-count:] for other in others):
            return check_task_name("-".join(part for part in parts[-count:] if part != os.sep))
    return parts[-1]


def _renamed(source: Source, name: str) -> Source:
    if name == source.name:
        return source
    return replace(source, name=name, label=source.label.removesuffix(shown(source.name)) + shown(name))
