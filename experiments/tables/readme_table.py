"""The table and figure of a job in the README and the documentation, from one checked-in `results.json`.

    python -m experiments.tables.readme_table runs/queries10/results.json
    python -m experiments.tables.readme_table runs/newsgroups10/results.json --name newsgroups10

keeps that file as `docs/NAME.json` and writes what is made of it: the README's blocks of that name between markers, the
same for the documentation in `docs/NAME.md`, and the figure `docs/assets/NAME.svg`. NAME is `main_job` by default.
Without a file it writes them anew from what is kept. Several files, of runs with unlike methods or seeds, become one.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments.config.command_words import DATA, weights_of, without_folder
from experiments.report.blocks import table
from experiments.report.cells import exact, ratio
from experiments.report.results import load_results, over_seeds, task_names
from experiments.tables.markers import marked, replaced
from experiments.tables.measures import measures_of
from share_jax.errors import FormatError, ShareError, message
from share_jax.storage.atomic_write import replace_text

ROOT = Path(__file__).parents[2]
MAIN = "main_job"
"""The job whose blocks the README has to have."""
WHAT = {
    "shared_a": "one A for all tasks, one B per task",
    "share": "one subspace that evolves, coefficients per task",
    "separate_lora": "a LoRA per task, nothing shared",
    "sequential_lora": "one LoRA, trained on from task to task",
    "o_lora": "a LoRA per task, orthogonal to the earlier ones, all of them added",
    "inflora": "a LoRA per task in a subspace that earlier tasks do not use, all of them added",
    "frozen_head": "no adapter, a linear head per task",
    "frozen": "no adapter, the model as it is",
    "frozen_few_shot": "no adapter, examples in the prompt",
    "joint": "one LoRA for all tasks at once: old data are kept",
}
"""The methods that are shown, at most `MOST` of them, in this order."""
MOST = 8
DRAWN = ("shared_a", "separate_lora", "sequential_lora", "frozen_head", "frozen")
"""The methods in the figure."""


def page(results: Mapping[str, Any]) -> str:
    """What was run, and the table.

    Args:
        results: the content of `results.json`.
    """
    seeds = results["seeds"]
    over = f"mean ± deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    measured, measures = measures_of(results)
    said = (
        f"{len(task_names(results))} tasks of `{results['experiment']}`, one after another on a frozen model "
        f"({results['protocol']}); {measured}, {over}:"
    )
    rows = [
        (f"`{name}`", WHAT[name], *(measure.cell(method) for measure in measures), *_sizes(method["params"]))
        for name, method in ((name, results["methods"][name]) for name in _shown(results))
    ]
    head = ("method", "what it is", *(measure.head for measure in measures), "adapter parameters", "of separate LoRAs")
    return f"{said}\n\n{table(head, rows, left=(0, 1))}\n\nFrom `{results['command']}`."


def drawn(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results of the methods in the figure alone."""
    return {**results, "methods": {name: results["methods"][name] for name in DRAWN if name in results["methods"]}}


def blocks_of(name: str) -> tuple[str, str]:
    """The README's blocks of a job: its table and its figure.

    >>> blocks_of("main_job")
    ('main job', 'main job figure')
    """
    table_block = name.replace("_", " ")
    return table_block, f"{table_block} figure"


def together(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of one experiment, of unlike methods or seeds, as one; of a run in several the last counts.

    Args:
        found: the contents of `results.json`, at least one.

    Raises:
        FormatError: they differ in what was learnt, or a method lacks a seed that another has.
    """
    first, *others = found
    for other in others:
        for key in ("experiment", "preset", "protocol", "tasks", "metrics"):
            if other.get(key) != first.get(key):
                what, got = f"{key} of {other['command']}", str(other.get(key))[:200]
                raise FormatError(message(what, got=got, expected=str(first.get(key))[:200], fix="run it alike"))
        ours, theirs = (weights_of(results["command"]) or "the stream's own" for results in (first, other))
        if ours != theirs:
            what = f"weights of {other['command']}"
            raise FormatError(message(what, got=theirs, expected=ours, fix="run it alike"))
    methods = {name: each for results in found for name, each in results["methods"].items()}
    seeds = sorted({seed for results in found for seed in results["seeds"]})
    for name in methods:
        own = [results["methods"][name]["runs"] for results in found if name in results["methods"]]
        runs = {run["seed"]: run for each in own for run in each}
        if sorted(runs) != seeds:
            fix = "give the results of those seeds, too"
            raise FormatError(message(f"seeds of {name}", got=sorted(runs), expected=str(seeds), fix=fix))
        if len(own) > 1:
            ordered = [runs[seed] for seed in seeds]
            mean, deviation = over_seeds(ordered)
            methods[name] = {**methods[name], "runs": ordered, "mean": mean, "std": deviation}
    return {**first, "seeds": seeds, "methods": methods, "command": _command(found, list(methods), seeds)}


def _command(found: Sequence[Mapping[str, Any]], methods: Sequence[str], seeds: Sequence[int]) -> str:
    """The one command that makes all of the results; the commands one after another where they differ in more."""
    commands = list(dict.fromkeys(results["command"] for results in found))
    chosen = ("--methods", "--seeds")
    rest = []
    folder = f" {DATA}" if any(DATA in command for command in commands) else ""
    for command in commands:
        words = without_folder(command).split()
        left = [word for word, before in zip(words, ["", *words], strict=False) if not {word, before} & set(chosen)]
        rest.append(" ".join(left))
    if len(commands) == 1 or len(set(rest)) > 1:
        return " && ".join(commands)
    many = f" --seeds {','.join(map(str, seeds))}" if len(seeds) > 1 else ""
    return f"{rest[0]}{folder} --methods {','.join(methods)}{many}"


def write(sources: Sequence[Path], root: Path = ROOT, name: str = MAIN) -> list[Path]:
    """Writes what is made of a job's results, and returns the files.

    Args:
        sources: `results.json` of runs, which are kept from now on; the one that is kept already when there are none.
        root: the checkout.
        name: of the job; the README has both blocks of `MAIN`, and those of others that are wanted there.

    Raises:
        FormatError: a file is no `results.json`, or they do not belong together, or have no accuracies; or the README
            lacks the main job's markers.
    """
    from experiments.report.figures import draw_curve
    from experiments.report.svg import figure_of

    docs, readme = root / "docs", root / "README.md"
    kept, picture = docs / f"{name}.json", f"assets/{name}.svg"
    results = together([load_results(source) for source in sources or (kept,)])
    text, parts = page(results), draw_curve(drawn(results))
    if parts is None:
        raise FormatError(
            message(str(kept), got="no accuracies", expected="some of every method", fix="give a whole run")
        )
    figure = figure_of(name.replace("_", "-"), *parts)
    told = readme.read_text(encoding="utf-8")
    for block, body in zip(blocks_of(name), (text, _image(f"docs/{picture}", figure.alt)), strict=True):
        if name == MAIN or marked(told, block):
            told = replaced(told, block, body, str(readme))
    files = {
        readme: told,
        docs / f"{name}.md": f"{_image(picture, figure.alt)}\n\n{text}\n",
        docs / picture: figure.file(),
        kept: json.dumps(results, indent=1, ensure_ascii=False) + "\n",
    }
    for path, content in files.items():
        replace_text(content, path)
    return list(files)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when all is written, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tables.readme_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="*", type=Path, help="results.json of a run, or of several alike")
    parser.add_argument("--name", default=MAIN, help="of the job, and of the files in docs/")
    args = parser.parse_args(argv)
    try:
        print(*write(args.results, name=args.name), sep="\n")
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _image(place: str, alt: str) -> str:
    return f'<img src="{place}" width="560" alt="{escape(alt)}">'


def _shown(results: Mapping[str, Any]) -> list[str]:
    return [name for name in WHAT if name in results["methods"]][:MOST]


def _sizes(held: Mapping[str, Any]) -> tuple[str, str]:
    return exact(held["total_tasks"]), ratio(held["ratio_to_separate"] or None)


if __name__ == "__main__":
    sys.exit(main())
