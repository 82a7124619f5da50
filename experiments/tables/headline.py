"""The short result tables in the documentation, from the same results as the page."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.report.blocks import spread, table
from experiments.report.cells import exact, percent, ratio
from experiments.tables.entries import EVERY
from experiments.tables.markers import marked, replaced
from share_jax.storage.atomic_write import replace_text

SHOWN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "results:headline": {
            "clinc150-task": "**CLINC150**, ten domains of 15 intents",
            "newsgroups10-task": "**20 Newsgroups**, ten pairs of groups",
        },
        "results:small": {"split_mnist5-task": "**Split MNIST**, five pairs of digits, 5,000 images"},
    }
)
"""The blocks: what each shows, by the entry's name."""

HEAD = ("method", "ACC", "forgetting", "retention", "adapter parameters", "of separate LoRAs", "with heads")


def write_headline(page: Path, command: str, found: Mapping[str, Mapping[str, Any] | None]) -> bool:
    """Replaces the blocks that a page has and whose entries have all been run; says whether there was one.

    Args:
        page: the file.
        command: what made the results.
        found: the content of `results.json` by the entry's name.

    Raises:
        FormatError: the page has one of a block's two markers alone.
    """
    content = before = page.read_text(encoding="utf-8") if page.exists() else ""
    for block, titles in SHOWN.items():
        known = {name: results for name in titles if (results := found.get(name)) is not None}
        if marked(content, block) and len(known) == len(titles):
            content = replaced(content, block, headline(command, known, titles), str(page))
    if content != before:
        replace_text(content, page)
    return content != before


def headline(command: str, found: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """A block: a line and a table for each entry that it shows."""
    blocks = []
    for name, title in titles.items():
        results = found[name]
        seeds = results["seeds"]
        how = f"mean ± deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
        blocks += [f"{title}, {how}, from\n`{command}`:", _table(results)]
    return "\n\n".join(blocks)


def _table(results: Mapping[str, Any]) -> str:
    rows = []
    for name in (name for name in EVERY if name in results["methods"]):
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
