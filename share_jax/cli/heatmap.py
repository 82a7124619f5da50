"""A matrix as a picture: an SVG that needs nothing else, drawn by Matplotlib where that is installed."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from share_jax.annotations import Float
from share_jax.errors import InputError, message
from share_jax.storage.atomic_write import replace_text

COLOURS = ("#2166ac", "#f7f7f7", "#b2182b")
"""Blue at -1, near white at 0, red at 1: readable without telling red from green."""

POINTS = 72
"""To the inch; an SVG of Matplotlib's is measured in them."""


def check_drawing(flag: str = "--heatmap") -> None:
    """Refuses to draw without Matplotlib; `flag` asks for the drawing.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        fix = "pip install 'share_jax[plots]', or leave the flag out"
        raise InputError(message(flag, got="no Matplotlib", expected="it to be installed", fix=fix))


def write_heatmap(path: Path, names: Sequence[str], matrix: Float[np.ndarray, "T T"], title: str) -> None:
    """Writes the matrix of values between -1 and 1, in one step, to an absolute path."""
    replace_text(heatmap(names, matrix, title), path)


def heatmap(names: Sequence[str], matrix: Float[np.ndarray, "T T"], title: str) -> str:
    """The SVG text; names and values are written out while there is room for them. The same input gives the same text.

    Args:
        names: of the tasks.
        matrix: values between -1 and 1.
        title: what stands above.
    """
    # optional and slow to load: only a command that draws waits for it
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    count = len(names)
    cell = max(2, min(40, 800 // max(count, 1)))
    named = cell >= 12
    labels = [name if len(name) <= 40 else name[:39] + "…" for name in names] if named else []
    margin, side = 16 + 7 * max(map(len, labels), default=0), max(cell * count, 60)
    width, height = margin + side + 90, side + 50 + margin
    # text stays text, and what Matplotlib numbers at random is numbered alike each time
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "share_jax", "font.size": 12}):
        figure = Figure((width / POINTS, height / POINTS), dpi=POINTS)
        axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
        colours = LinearSegmentedColormap.from_list("likeness", COLOURS, N=2**12)
        image = axes.imshow(matrix, colours, vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_title(f"{title}, {count} tasks", loc="left", parse_math=False)
        axes.set_xticks(range(len(labels)), labels, rotation=90, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        if cell >= 32:
            for (i, j), value in np.ndenumerate(matrix):
                shade = "white" if abs(value) > 0.6 else "black"
                axes.text(j, i, f"{value:.2f}", color=shade, ha="center", va="center", fontsize=11)
        scale = figure.add_axes(((margin + side + 16) / width, margin / height, 14 / width, side / height))
        figure.colorbar(image, scale, ticks=[-1, 0, 1])
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
