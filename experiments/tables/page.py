"""A table's section of the results page, made from the `results.json` of its entries alone.

There is one table for each stream and protocol: two protocols never share one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from experiments.config.experiment import experiments
from experiments.report.blocks import spread, table, text
from experiments.report.cells import exact, percent, ratio, seconds
from experiments.report.results import run_seconds, task_names, total_seconds
from experiments.report.routing import ROUTER, WITH_ID, WITHOUT, finding
from experiments.streams.protocols import CLASS, DOMAIN, TASK
from experiments.tables.facts import NOTE, facts, margins_table
from experiments.tables.public import figure

TITLES = {
    "small": "Small streams: digits and MNIST",
    "text": "Text streams: CLINC150 and 20 Newsgroups",
    "class": "Class-incremental, with every method",
}

MEANING = {
    TASK: "the id of an example's task is given when it is answered",
    DOMAIN: "no id is given; all tasks have the same outputs",
    CLASS: "no id is given; outputs grow with the tasks, and an answer is right among all classes seen so far",
}
APART = (
    "Every table below is one stream under one protocol. Figures of different tables are not to be compared: neither "
    "those of two streams nor those of two protocols."
)
COLUMNS = (
    "ACC is the mean accuracy over all tasks after the last, in percent, as are retention and learning accuracy; BWT "
    "and forgetting are in points. A bare 0 is exact, 0.00 is rounded, - is undefined. *Of separate LoRAs*: adapter "
    "parameters of all tasks, heads apart, against as many separate LoRAs of the same rank on the same kernels; *added "
    "per task*: adapter parameters that a task adds; *trained*: those that a later task trains, where the method "
    "tells. Seconds are the mean wall time of one run, compiling included."
)
ROUTED = (
    "Where each task has a slot of its own a router chooses it, and ACC is what that gives (*router*: how often it "
    "chooses rightly, after the last task; *ACC with id*: had the task been told; *ACC without router*: by the last "
    "task's slot where all tasks have the same outputs, else by the highest logit of all heads). `-`: one head answers "
    "for all tasks, and nothing is routed."
)
PRETRAINED = (
    "The vision transformer of the digits, MNIST and Fashion-MNIST streams is pretrained for the run, on the training "
    "images of all its tasks and without their labels: what is frozen has seen the images of tasks to come."
)
MEASURES = ("acc", "forgetting", "retention", "learning_accuracy", "bwt")
_ROUTED = (("router", ROUTER), ("ACC with id", WITH_ID), ("ACC without router", WITHOUT))


@dataclass(frozen=True)
class Section:
    """What a table's section is made of.

    Attributes:
        table: its name.
        command: what makes it.
        found: the content of `results.json` by the entry's name, in order; None where there is none yet.
        why: sentences on single entries, by name.
    """

    table: str
    command: str
    found: Mapping[str, Mapping[str, Any] | None]
    why: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ended(self) -> dict[str, Mapping[str, Any]]:
        """The entries that have results."""
        return {name: results for name, results in self.found.items() if results is not None}


def render(section: Section) -> str:
    """The section as Markdown, without a newline at its end."""
    return "\n\n".join(_blocks(section))


def _blocks(section: Section) -> Iterator[str]:
    ended = section.ended
    yield f"## {TITLES.get(section.table, section.table)}"
    yield f"```\n{section.command}\n```"
    missing = [name for name in section.found if name not in ended]
    if missing:
        yield f"Not run yet with these settings: {', '.join(missing)}."
    if not ended:
        return
    yield _settings(list(ended.values()))
    yield from _spent(list(ended.values()))
    present = [name for name in MEANING if any(_protocol(results) == name for results in ended.values())]
    yield "\n".join(f"- {name}: {MEANING[name]}." for name in present)
    yield APART
    yield COLUMNS
    if present != [TASK]:
        yield ROUTED
    if any(_pretrained_here(results["experiment"]) for results in ended.values()):
        yield PRETRAINED
    for name, results in ended.items():
        yield from _entry(name, results, section.why.get(name))


def _pretrained_here(name: str) -> bool:
    known = experiments()
    return name in known and known[name].pretrained_here


def _protocol(results: Mapping[str, Any]) -> str:
    return next((name for name in MEANING if results["protocol"].startswith(name)), results["protocol"])


def _settings(found: Sequence[Mapping[str, Any]]) -> str:
    presets = " or ".join(dict.fromkeys(results["preset"] for results in found))
    seeds = " or ".join(dict.fromkeys(", ".join(map(str, results["seeds"])) for results in found))
    keys = dict.fromkeys(key for results in found for key in results["versions"])
    versions = (
        f"{key} {' or '.join(dict.fromkeys(str(results['versions'].get(key)) for results in found))}" for key in keys
    )
    several = any(len(results["seeds"]) > 1 for results in found)
    how = " Mean ± sample deviation over the seeds." if several else " One seed: no deviations."
    return f"Preset {presets}, seeds {seeds}.{how} Versions: {text(', '.join(versions))}."


def _spent(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The runs' own seconds; the wall time of the command is not known from the results."""
    runs = [run for results in found for method in results["methods"].values() for run in method["runs"]]
    known = [spent for run in runs if (spent := run_seconds(run["seconds"])) is not None]
    if known:
        yield (
            f"Seconds of training and evaluation, preparing and compiling included, summed over {len(known)} runs, "
            f"each one method with one seed: {exact(sum(known))}. This is not the wall time of the command, which may "
            "run several at once."
        )


def _entry(name: str, results: Mapping[str, Any], why: str | None) -> Iterator[str]:
    label = "".join(f", {part.replace('_', ' ')}" for part in name.split("-")[2:])
    yield f"### {text(results['experiment'])}, {text(results['protocol'])}{label}"
    if why:
        yield why
    tasks = len(task_names(results))
    yield f"{tasks} tasks, from `{results.get('command', '')}`:"
    yield methods_table(results)
    yield "\n".join(f"- {fact}" for fact in facts(results))
    margins = margins_table(results["methods"])
    if margins:
        yield margins
        yield NOTE
    yield f"Public figures: {figure(results['experiment'])}"


def methods_table(results: Mapping[str, Any]) -> str:
    """One row per method."""
    methods = results["methods"]
    routed = _ROUTED if _protocol(results) != TASK else ()
    trained = any("trained_per_later_task" in method["params"] for method in methods.values())
    head = (
        "method",
        "ACC",
        *(title for title, _ in routed),
        "forgetting",
        "retention",
        "learning accuracy",
        "BWT",
        "of separate LoRAs",
        "added per task",
        *(("trained",) if trained else ()),
        "seconds",
    )
    rows = []
    for name, method in methods.items():
        mean, deviation, held = method["mean"], method["std"], method["params"]
        acc, *others = (spread(percent, mean[key], deviation[key]) for key in MEASURES)
        rows.append(
            (
                f"`{name}`",
                acc,
                *(finding(method, key) for _, key in routed),
                *others,
                ratio(held["ratio_to_separate"]),
                exact(held["per_task"]),
                *((exact(held.get("trained_per_later_task")),) if trained else ()),
                seconds(total_seconds(method)[0]),
            )
        )
    return table(head, rows)
