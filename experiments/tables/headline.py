"""The README's result tables, from the same results as the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.report.blocks import spread, table
from experiments.report.cells import exact, percent, ratio
from experiments.tables.entries import HEADLINE
from experiments.tables.markers import marked, replaced
from share_jax.train.files import replace_text

BLOCK = "results:headline"
SHOWN = {
    "clinc150-task": "**CLINC150**, ten domains of 15 intents",
    "newsgroups10-task": "**20 Newsgroups**, ten pairs of groups",
}
"""What the README shows, by the entry's name."""

HEAD = ("method", "ACC", "forgetting", "retention", "adapter parameters", "of separate LoRAs", "with heads")


def write_headline(readme: Path, command: str, found: Mapping[str, Mapping[str, Any] | None]) -> bool:
    """Replaces the block of a README, if it has one and all that it shows has been run; says whether it did.

    Args:
        readme: the file.
        command: what made the results.
        found: the content of `results.json` by the entry's name.

    Raises:
        FormatError: the README has one of the two markers alone.
    """
    shown = {name: found.get(name) for name in SHOWN}
    content = readme.read_text(encoding="utf-8") if readme.exists() else ""
    known = {name: results for name, results in shown.items() if results is not None}
    if not marked(content, BLOCK) or len(known) < len(shown):
        return False
    replace_text(replaced(content, BLOCK, headline(command, known), str(readme)), readme)
    return True


def headline(command: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The block: a line and a table for each of `SHOWN`."""
    blocks = []
    for name, title in SHOWN.items():
        results = found[name]
        seeds = results["seeds"]
        how = f"mean ± deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
        blocks += [f"{title}, {how}, from\n`{command}`:", _table(results)]
    return "\n\n".join(blocks)


def _table(results: Mapping[str, Any]) -> str:
    rows = []
    for name in (name for name in HEADLINE if name in results["methods"]):
        method = results["methods"][name]
        mean, deviation, held = method["mean"], method["std"], method["params"]
        rows.append(
            (
                f"`{name}`",
                *(spread(percent, mean[key], deviation[key]) for key in ("acc", "forgetting", "retention")),
                exact(held["total_tasks"]),
                ratio(held["ratio_to_separate"] or None),
                ratio(held.get("ratio_to_separate_with_heads") if held["ratio_to_separate"] else None),
            )
        )
    return table(HEAD, rows)
