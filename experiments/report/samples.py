"""What a language model wrote after the last task, as a run's results tell it."""

from collections.abc import Mapping
from typing import Any


def samples_of(results: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Of each method that wrote, the samples of its first run.

    Args:
        results: the content of `results.json`.
    """
    told = {name: method["runs"][0].get("extra", {}).get("samples") for name, method in results["methods"].items()}
    return {name: samples for name, samples in told.items() if samples}


def verdict(sample: Mapping[str, str]) -> tuple[str, str]:
    """What was written, and "yes" or what was wanted instead.

    >>> verdict({"written": "a", "wanted": "b"})
    ('a', 'no: b')
    """
    return sample["written"], "yes" if sample["written"] == sample["wanted"] else f"no: {sample['wanted']}"


def plain_samples(results: Mapping[str, Any]) -> str:
    """The samples as lines for a terminal: the question, and an answer for each task; empty where there are none."""
    lines: list[str] = []
    for name, samples in samples_of(results).items():
        width = max(len(each["task"]) for each in samples)
        lines += [f"One question of every task, answered after the last one ({name}, one batch):"]
        lines += [f"  {line}" for line in samples[0]["prompt"].strip().splitlines()]
        for each in samples:
            written, right = verdict(each)
            lines += [f"{each['task']:<{width}}  {written}" + ("" if right == "yes" else f"   [{right}]")]
    return "\n".join(lines)
