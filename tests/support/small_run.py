"""The smallest run of the command line, and what it found."""

from pathlib import Path

from experiments.report.results import load_results

SMALL = ["--experiment", "digits5", "--preset", "quick", "--steps", "8", "--quiet", "--eval-batch-size", "64"]


def matrices(folder: Path) -> dict[str, list]:
    content = load_results(folder / "results.json")
    return {name: [run["accuracy_matrix"] for run in method["runs"]] for name, method in content["methods"].items()}
