"""What commands say of where adapters began and of what to do with them, and the commands that do it."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from share_jax.adapters.shared_starts import Starts

_SHOWN = 6
"""Folders of a command, or tasks of a group, that are printed; JSON has all."""


def starts_data(starts: Starts, names: Sequence[str]) -> dict[str, Any]:
    """The groups by the tasks' names."""
    groups = [
        {"tasks": [names[t] for t in group], "cosine": cosine}
        for group, cosine in zip(starts.groups, starts.cosines, strict=True)
    ]
    return {"groups": groups, "alone": [names[t] for t in starts.alone]}


def starts_line(data: Mapping[str, Any]) -> str:
    """The same in a line."""
    groups, alone = data["groups"], len(data["alone"])
    if not groups and alone == 1:
        return "One adapter alone shares no random start."
    if not groups:
        return "Each adapter began with an A of its own: they share no random start."
    sizes = ", ".join(f"{len(group['tasks'])} (cosine {group['cosine']:.2f})" for group in groups[:_SHOWN])
    more = ", ..." if len(groups) > _SHOWN else ""
    if len(groups) == 1 and not alone:
        return f"All adapters began with the same A (cosine {groups[0]['cosine']:.2f})."
    return f"Adapters that began with the same A: {sizes}{more}; {alone} with one of their own."


def size_words(choice: Mapping[str, Any]) -> list[str]:
    """A choice of k as flags of `compress`.

    >>> size_words({"explained_variance": 0.99})
    ['--explained-variance', '0.99']
    """
    return [word for name, value in choice.items() for word in ("--" + name.replace("_", "-"), f"{value:g}")]


def further_words(args: argparse.Namespace) -> list[str]:
    """What else was given of the inputs, as flags of `compress`."""
    given = [("--base-model", args.base_model), ("--names", args.names)]
    return [word for flag, value in given if value is not None for word in (flag, value)]


def compress_command(folders: Sequence[str], out: str, options: Sequence[str]) -> str:
    """The command that makes a set of folders."""
    return shlex.join(["share-jax", "compress", *map(str, folders), "-o", out, *options])


def split_commands(
    starts: Starts,
    folders: Sequence[str],
    names: Sequence[str],
    out: str,
    options: Sequence[str],
    given: Sequence[str] | None = None,
) -> list[str]:
    """A command for each group; none where a folder holds several tasks, which must be exported first.

    Args:
        starts: the groups.
        folders: all inputs, in the order of the tasks.
        names: of the tasks.
        out: folder of the first set but for its number.
        options: of every command.
        given: the names that the user gave with `--name`, which each command passes on.
    """
    if len(folders) != len(names):
        return []
    own = [[*options, *name_words([given[t] for t in group] if given else None)] for group in starts.groups]
    return [
        compress_command([folders[t] for t in group], f"{out}-{i + 1}", own[i]) for i, group in enumerate(starts.groups)
    ]


def name_words(given: Sequence[str] | None) -> list[str]:
    """`--name` with the names that were given; nothing where there are none."""
    return ["--name", *given] if given else []


def advice_lines(advice: Mapping[str, Any]) -> list[str]:
    """The advice for a person; long commands are shortened."""
    lines = ["", f"Advice ({advice['action']}): {advice['reason']}"] if advice["action"] != "nothing" else []
    return lines + [f"  {_shortened(command)}" for command in advice["commands"][:_SHOWN]]


def _shortened(command: str) -> str:
    words = shlex.split(command)
    end = words.index("-o")
    folders = words[2:end]
    if len(folders) <= _SHOWN:
        return command
    some = shlex.join(folders[: _SHOWN - 1])
    return f"share-jax compress {some} ... {shlex.join(words[end:])}  ({len(folders)} folders; --json has all)"
