"""The table, the figures and the Markdown report, all made from `results.json` content alone."""

import io
import json
import re
import struct

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from report_results import LONG, METHODS, NAN, results

from experiments.report.figures import draw_curve
from experiments.report.markdown import render, write_report
from experiments.report.matrices import draw_matrices
from experiments.report.table import plain_table, print_table
from share_jax.metrics import seen_accuracy


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_plain_table_fits_100_columns_with_every_figure_whole(seeds):
    content = results(seeds=seeds)
    lines = plain_table(content).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.isprintable() and line == line.rstrip() for line in lines)
    assert "protocol: task-incremental" in lines[1]
    for name, method in content["methods"].items():
        row = next(line for line in lines if line.split()[:1] == [name]).split()
        assert row[1] == f"{100 * method['mean']['acc']:.2f}"
        assert row[-3:-1] == ["178.2k", "0.264"]
    joint = next(line for line in lines if line.startswith("joint")).split()
    assert joint[2:7] == ["-"] * 5
    shared = next(line for line in lines if line.startswith("shared_a")).split()
    assert shared[3:7] == ["0", "-", "0", "100.00"]
    assert ("±" in "".join(lines)) == (len(seeds) > 1)


def test_table_tells_of_missing_seeds():
    content = results(methods=("shared_a", "joint"), seeds=(0, 1))
    whole = results(methods=("shared_a", "joint"))
    content["methods"]["joint"] = whole["methods"]["joint"]
    assert "(1 of 2 seeds)" in plain_table(content)
    assert "joint (1 of 2 seeds)" in render(content)


def test_the_table_says_that_its_mean_is_of_unlike_metrics():
    alike, unlike = (
        {**results(("a", "b")), "metrics": each} for each in (["exact_match"] * 2, ["exact_match", "bits_saved"])
    )
    assert "ACC is the mean of unlike metrics: bits_saved, exact_match" in " ".join(plain_table(unlike).split())
    assert "unlike" not in plain_table(alike)
    assert "Accuracy of a task, here and below, is its exact match, and ACC" in render(alike)
    assert "exact_match for a, bits_saved for b." in render(unlike)
    mixed = {**unlike, "metrics": ["accuracy", "f1"]}
    assert "ACC is their mean: f1 for b; accuracy for the others." in render(mixed)
    assert any("exact match in %" in text for text, _ in visible_texts(draw_matrices(alike)))


def test_printing_elsewhere_than_to_a_terminal_is_plain(capsys):
    print_table(results())
    assert capsys.readouterr().out == plain_table(results()) + "\n"


def test_printing_to_a_stream_without_unicode():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(results(seeds=(0, 1)), stream)
    stream.seek(0)
    assert "+/-" in stream.read()


def visible_texts(figure):
    """Every text that shows, and where, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    shown = [text for text in texts if text.get_visible()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


CASES = [
    (LONG, METHODS, (0,)),
    (LONG, METHODS, (0, 1, 2)),
    (LONG[:2], METHODS[:3], (0, 1)),
    (("0+1",), ("shared_a",), (0,)),
    (tuple(f"task {i}" for i in range(30)), METHODS[:4], (0,)),
]


def curve(content):
    chart, _, _ = draw_curve(content)
    return chart


@pytest.mark.parametrize("draw", [draw_matrices, curve])
@pytest.mark.parametrize("case", CASES)
def test_no_text_of_a_figure_overlaps_another_or_leaves_the_page(draw, case):
    figure = draw(results(*case))
    texts = visible_texts(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in texts:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    boxes = np.array([box.extents for _, box in texts])
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    over = np.triu((high - low > 1).all(axis=-1), 1)  # one pixel
    assert not over.any(), [(texts[one][0], texts[other][0]) for one, other in np.argwhere(over)]


def test_heat_maps_share_a_scale_show_every_value_and_leave_the_rest_blank():
    content = results(seeds=(0, 1))
    axes = draw_matrices(content).axes
    for panel, (name, method) in zip(axes, content["methods"].items(), strict=False):
        assert panel.get_title(loc="left") == f"{name}, mean of 2 seeds"
        (image,) = panel.collections
        assert image.get_clim() == (0, 100)
        mean = np.mean([np.array(run["accuracy_matrix"], dtype=float) for run in method["runs"]], axis=0)
        np.testing.assert_array_equal(image.get_array().filled(NAN), 100 * mean)
        blank = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
        assert len(blank) == np.isnan(mean).sum()
        numbers = [text.get_text() for text in panel.texts if text.get_text().isdigit()]
        assert numbers == [f"{100 * value:.0f}" for value in mean[~np.isnan(mean)]]


def test_curve_shows_the_mean_over_seen_tasks_and_the_majority_dashed():
    content = results()
    chart = curve(content)
    (axes,) = chart.axes
    shown = {line.get_label().partition(":")[0]: line for line in axes.lines if len(line.get_xdata()) == len(LONG)}
    lines = {}
    for name, method in content["methods"].items():
        line = shown[name]
        wanted = seen_accuracy(np.array(method["runs"][0]["accuracy_matrix"], dtype=float))
        np.testing.assert_allclose(line.get_ydata(), 100 * wanted, rtol=1e-12)
        lines[name] = line
    assert lines["majority_class"].is_dashed()
    assert not lines["shared_a"].is_dashed()
    assert len({line.get_color() for line in lines.values()}) == len(METHODS)
    assert len(lines) == len(shown)
    named = {text.get_text().partition(":")[0] for text in chart.legends[0].get_texts()}
    assert set(METHODS) <= named


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def test_report_holds_every_part_and_both_figures(tmp_path):
    content = json.loads(json.dumps(results(seeds=(0, 1))))
    path = write_report(content, tmp_path / "report")
    text = path.read_text(encoding="utf-8")
    assert path.name == "report.md"
    for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        width, height = png_size(path.parent / image)
        assert width > 900
        assert height > 500
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "accuracy_matrix.png",
        "accuracy_over_tasks.png",
        "report.md",
    ]
    for part in ("python -m experiments.run --preset quick", "task-incremental", "seeds 0, 1", "3.11.0"):
        assert part in text
    for name in (*LONG, *METHODS):
        assert name in text
    assert "178,176" in text
    assert "0.264" in text
    # the same with heads: (178176 + 7700) / (675840 + 7700)
    assert "0.272" in text
    assert "216.0 KiB" in text
    assert "nan" not in text.lower()


def test_every_table_of_the_report_is_rectangular():
    tasks = ("a|b", "c\nd", "*e*", "f_g", "_h_", "[i](j)", "`k`", "<l>")
    text = render(results(tasks=tasks, seeds=(0, 1)))
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(blocks) >= 4 + len(METHODS)
    for block in blocks:
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block}
        assert len(widths) == 1, block[0]
    assert "a\\|b" in text
    assert "c d" in text
    assert "f_g" in text
    assert "\\_h\\_" in text


def test_report_tells_changed_logits_and_counts_one_shared_head_once():
    content = results(methods=("shared_a", "sequential_lora_one_head", "joint"), seeds=(0, 1))
    for name, found in (("shared_a", (0, 0)), ("sequential_lora_one_head", (9, 8))):
        for run, changed in zip(content["methods"][name]["runs"], found, strict=True):
            run["extra"] = {"tasks_with_changed_logits": changed}
    content["methods"]["sequential_lora_one_head"]["params"]["head_sets"] = 1
    content["methods"]["joint"]["params"]["base"] = 0
    text = render(content)
    assert "when the task was learnt: shared_a 0, sequential_lora_one_head 9 / 8." in text
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in text.splitlines() if "| 675,840 |" in line}
    assert [rows[name][5] for name in ("shared_a", "sequential_lora_one_head")] == ["7,700", "770"]
    assert "the frozen base model has 22,713,216 (22.7M)." in text


def test_report_is_made_from_the_required_keys_alone():
    content = results(methods=("shared_a", "joint"))
    del content["tasks"], content["command"]
    for method in content["methods"].values():
        for values in (*method["runs"], method["mean"], method["std"]):
            del values["average_incremental_accuracy"]
        for run in method["runs"]:
            del run["untrained"]
    text = render(content)
    assert "| 1 task 1 |" in text
    plain_table(content)
