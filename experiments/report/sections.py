"""Several runs' results, put together where they may be compared and kept apart where they may not.

Runs are of one section if experiment, preset, protocol, tasks and every other setting agree: then they differ in
methods and seeds alone, and one table may hold them. Anything else is a section of its own.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.command_words import without_folder
from experiments.report.results import load_results, over_seeds, task_names
from share_jax.errors import InputError, message

FILE = "results.json"
FREE = ("methods ", "seeds ", "mesh ")
"""Flags in which runs of one section may differ, as they may in one workdir."""


def load_sections(places: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """The results of every section, each as the content of one `results.json`.

    Args:
        places: workdirs, or paths of `results.json` files.

    Raises:
        InputError: no place, or two runs of one section have the same method with the same seed, or count its
            parameters differently.
        FormatError: a file cannot be read or is not of the schema.
    """
    if not places:
        raise InputError(
            message("workdirs", got="none", expected="at least one", fix="pass a folder with results.json")
        )
    groups: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
    for place in places:
        path = Path(place) / FILE if Path(place).is_dir() else Path(place)
        results = load_results(path)
        groups.setdefault(_key(results), []).append((str(place), results))
    return [_joined(group) for group in groups.values()]


def settings(results: Mapping[str, Any]) -> str:
    """The command that was run, without what runs of one section may differ in."""
    words = without_folder(results.get("command", "")).split(" --")
    return " --".join(word for word in words if not word.startswith(FREE))


def _key(results: Mapping[str, Any]) -> tuple[Any, ...]:
    names = (results["experiment"], results["preset"], results["protocol"])
    return (*names, tuple(task_names(results)), settings(results))


def _joined(group: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    (came_from, first), *others = group
    joined = {**first, "methods": dict(first["methods"])}
    came = {(name, run["seed"]): came_from for name, method in first["methods"].items() for run in method["runs"]}
    for place, results in others:
        for name, method in results["methods"].items():
            for run in method["runs"]:
                key = name, run["seed"]
                if key in came:
                    what, fix = f"method {name}, seed {run['seed']}", "leave one of the two out"
                    got = f"once in {came[key]} and once in {place}"
                    raise InputError(message(what, got=got, expected="one run", fix=fix))
                came[key] = place
            known = joined["methods"].get(name)
            joined["methods"][name] = method if known is None else _longer(name, known, method, place)
    joined["seeds"] = list(dict.fromkeys(seed for _, results in group for seed in results["seeds"]))
    joined["versions"] = {
        key: " or ".join(dict.fromkeys(str(results["versions"].get(key)) for _, results in group))
        for key in dict.fromkeys(key for _, results in group for key in results["versions"])
    }
    commands = dict.fromkeys(results["command"] for _, results in group if results.get("command"))
    return {**joined, "command": "\n".join(commands)} if commands else joined


def _longer(name: str, known: Mapping[str, Any], more: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A method with the runs of both."""
    if known["params"] != more["params"]:
        differ = [key for key in known["params"] if known["params"][key] != more["params"].get(key)]
        what, fix = f"method {name} in {place}, {', '.join(differ) or 'params'}", "report the two runs apart"
        got, expected = [more["params"].get(key) for key in differ], [known["params"][key] for key in differ]
        raise InputError(message(what, got=got, expected=f"{expected}, as in the others", fix=fix))
    runs = [*known["runs"], *more["runs"]]
    mean, deviation = over_seeds(runs)
    return {**known, "runs": runs, "mean": mean, "std": deviation}
