"""The table that a run prints: one row per method, for a terminal and, without colour or lines, for a file."""

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.report.cells import count, percent, ratio, seconds
from experiments.report.results import total_seconds

WIDTH = 100
MEASURES = (
    ("ACC", "acc"),
    ("learn.\nacc", "learning_accuracy"),
    ("BWT", "bwt"),
    ("FWT", "fwt"),
    ("forget-\nting", "forgetting"),
    ("reten-\ntion", "retention"),
)
NOTE = (
    "ACC, learning accuracy and retention in %, BWT, FWT and forgetting in points; - is undefined, a bare 0 "
    "is exact. Parameters: adapters of all tasks without heads; ratio: to as many separate LoRAs; s: wall time."
)


def print_table(results: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Prints the table of a loaded `results.json` to `file` (standard output by default).

    On a terminal it has colour and fits the terminal; elsewhere it is plain text of at most 100 columns.
    """
    console = Console(file=file)
    sign = "±" if console.encoding.lower().startswith("utf") else "+/-"
    if console.is_terminal:
        console.print(build_table(results, sign=sign))
    else:
        print(plain_table(results, sign), file=file)


def plain_table(results: Mapping[str, Any], sign: str = "±") -> str:
    """The table as plain text of at most 100 columns, without a newline at the end."""
    buffer = StringIO()
    console = Console(file=buffer, width=WIDTH, color_system=None, highlight=False, force_terminal=False)
    console.print(build_table(results, plain=True, sign=sign))
    return "\n".join(text.rstrip() for text in buffer.getvalue().rstrip().splitlines())


def build_table(results: Mapping[str, Any], plain: bool = False, sign: str = "±") -> Table:
    """The table of a loaded `results.json`; with several seeds each cell has the mean over its deviation."""
    table = Table(
        title=Text(title(results), style="" if plain else "bold"),
        title_justify="left",
        caption=Text(_caption(results, sign), style="" if plain else "dim"),
        caption_justify="left",
        box=None if plain else box.SIMPLE_HEAD,
        padding=(0, 2, 0, 0) if plain else (0, 1),
        collapse_padding=True,
        pad_edge=False,
        header_style="" if plain else "bold",
    )
    table.add_column("method", no_wrap=True)
    for heading in (*(name for name, _ in MEASURES), "param-\neters", "ratio", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, method in results["methods"].items():
        mean, std = method["mean"], method["std"]
        time, spread = total_seconds(method)
        table.add_row(
            Text(label(name, method, len(results["seeds"]))),
            *(_cell(percent, mean[key], std[key], sign, plain) for _, key in MEASURES),
            Text(count(method["params"]["total_tasks"])),
            Text(ratio(method["params"]["ratio_to_separate"])),
            _cell(seconds, time, spread, sign, plain),
        )
    return table


def title(results: Mapping[str, Any]) -> str:
    """What was run, and under which protocol: results of two protocols are never compared."""
    tasks = len(next(iter(results["methods"].values()))["runs"][0]["accuracy_matrix"])
    seeds = ", ".join(map(str, results["seeds"]))
    named = "seed" if len(results["seeds"]) == 1 else "seeds"
    return (
        f"{results['experiment']}, preset {results['preset']}, {tasks} tasks, {named} {seeds}\n"
        f"protocol: {results['protocol']}"
    )


def label(name: str, method: Mapping[str, Any], seeds: int) -> str:
    """A method's name, and how many of the seeds it ran with when not with all."""
    runs = len(method["runs"])
    return name if runs == seeds else f"{name}\n({runs} of {seeds} seeds)"


def _caption(results: Mapping[str, Any], sign: str) -> str:
    over = f" Mean over the seeds above {sign} sample deviation." if len(results["seeds"]) > 1 else ""
    unlike = sorted(set(results.get("metrics", ())))
    return NOTE + over + (f" ACC is the mean of unlike metrics: {', '.join(unlike)}." if len(unlike) > 1 else "")


def _cell(
    write: Callable[[float | None], str], mean: float | None, spread: float | None, sign: str, plain: bool
) -> Text:
    cell = Text(write(mean))
    if spread is not None:
        cell.append(f"\n{sign}{write(spread)}", style="" if plain else "dim")
    return cell
