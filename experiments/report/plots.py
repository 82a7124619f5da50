"""Writes the two figures of a run as PNG, off screen and without touching matplotlib's global settings."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.report.curve import draw_curve
from experiments.report.matrices import draw_matrices
from experiments.report.style import FONT

DPI = 150


def plot_matrices(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws one heat map of accuracies per method on one colour scale, and writes them as one PNG.

    Args:
        results: the content of `results.json`; several seeds are averaged.
        path: where the PNG goes.
    """
    _write(draw_matrices, results, path)


def plot_curve(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws the mean accuracy over the tasks seen so far after each task, a line per method, as a PNG.

    Args:
        results: the content of `results.json`; several seeds give a line of means in a band of one deviation.
        path: where the PNG goes.
    """
    _write(draw_curve, results, path)


def _write(
    draw: Callable[[Mapping[str, Any]], Figure], results: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(FONT):
        figure = draw(results)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=DPI, facecolor="white", format="png", metadata={"Software": None})
