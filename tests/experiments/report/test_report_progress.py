"""The progress of a job: what is shown, how seldom a loss is read, and the time left."""

import io
import re

import numpy as np
import pytest

from experiments.report.progress import SECONDS_BETWEEN_LINES, NullProgress, open_progress
from share_jax.errors import InputError


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


class Loss:
    """A scalar whose every reading is counted, as an array on a device would wait."""

    def __init__(self):
        self.readings = 0

    def __float__(self):
        self.readings += 1
        return 0.5


def run(progress, clock, steps, seconds_per_step, loss=None, task_index=0):
    progress.begin(method="shared_a", task_index=task_index, task_count=2, task_name="banking")
    for _ in range(steps):
        clock.now += seconds_per_step
        progress.update(1, loss)


def test_plain_lines_name_method_task_step_loss_and_time_left():
    stream, clock = io.StringIO(), Clock()
    with open_progress(200, stream=stream, clock=clock) as progress:
        run(progress, clock, 100, 1.0, loss=0.25)
        lines = stream.getvalue().splitlines()
        assert lines[0] == "[  0%] shared_a, task 1/2 banking, step 0/200, loss -, left -"
        # a line every 15 s, none between: after 15, 30, ..., 90 steps; 1 s a step and 200 - 15 to go
        assert len(lines) == 1 + 100 // int(SECONDS_BETWEEN_LINES)
        assert lines[1] == "[  7%] shared_a, task 1/2 banking, step 15/200, loss 0.2500, left 3m05s"
        run(progress, clock, 100, 0.01, task_index=1)
    lines = stream.getvalue().splitlines()[1 + 6 :]
    assert lines[0].startswith("[ 50%] shared_a, task 1/2 banking, step 100/200, loss 0.2500, left ")
    assert lines[1] == "[100%] shared_a, task 2/2 banking, step 200/200, loss -, left 0s"
    assert lines[2:] == ["[100%] done: step 200/200 in 1m41s"]


def test_rate_is_that_of_the_recent_past():
    stream, clock = io.StringIO(), Clock()
    progress = open_progress(1000, stream=stream, clock=clock)
    run(progress, clock, 100, 10.0)  # slow, then fast for longer than the window
    run(progress, clock, 400, 0.5, task_index=1)
    last = stream.getvalue().splitlines()[-1]
    left = last.rpartition("left ")[2]
    assert "step 49" in last or "step 50" in last  # shown within the last 15 s of 0.5 s steps
    assert left in {f"4m{seconds:02d}s" for seconds in range(9, 20)}  # about 500 * 0.5 s


def test_skipped_steps_are_done_but_not_taken_for_speed():
    stream, clock = io.StringIO(), Clock()
    progress = open_progress(1000, stream=stream, clock=clock)
    progress.skip(900)
    run(progress, clock, 20, 1.0)
    assert stream.getvalue().splitlines()[-1].endswith("step 915/1,000, loss -, left 1m25s")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_loss_is_read_only_when_shown(stream):
    clock, loss = Clock(), Loss()
    with open_progress(10_000, stream=stream, clock=clock) as progress:
        run(progress, clock, 10_000, 0.001, loss=loss)
    assert 1 <= loss.readings <= 10 * 3 + 1  # 10 s at 3 a second, and the end of the task


def test_loss_may_be_a_callable_or_an_array():
    stream, clock = io.StringIO(), Clock()
    with open_progress(2, stream=stream, clock=clock) as progress:
        run(progress, clock, 1, 20.0, loss=lambda: np.float32(0.125))
        run(progress, clock, 1, 20.0, loss=np.array(1e-5), task_index=1)
    assert "loss 0.1250" in stream.getvalue()
    assert "loss 1.0e-05" in stream.getvalue()


def test_terminal_shows_a_bar_that_ends_full_and_takes_names_literally():
    stream = Terminal()
    with open_progress(3, stream=stream) as progress:
        progress.begin(method="shared_a", task_index=0, task_count=1, task_name="[red]names[/red]")
        progress.note("a [bold]note[/bold]")
        progress.update(3, 0.5)
    shown = stream.getvalue()
    assert "\x1b[" in shown
    assert "a [bold]note[/bold]" in shown
    assert "shared_a" in shown
    assert "3/3" in shown


def test_failure_is_not_told_as_done():
    stream, loss = io.StringIO(), Loss()

    def fail():
        with open_progress(4, stream=stream) as progress:
            progress.begin(method="m", task_index=0, task_count=1, task_name="t")
            progress.update(1, loss)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert stream.getvalue().splitlines()[-1] == "[ 25%] stopped: step 1/4 in 0s"
    assert loss.readings == 0  # the device may be what failed


@pytest.mark.parametrize("columns", [80, 120])
def test_bar_keeps_every_figure_whole(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with open_progress(12_000, stream=stream) as progress:
        name = "comp.os.ms-windows.misc+rec.sport.hockey"
        progress.begin(method="sequential_lora_one_head", task_index=4, task_count=10, task_name=name)
        progress.update(5_000, 0.25)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).rstrip().splitlines()[-1].rpartition("\r")[2]
    assert len(last) <= columns
    assert re.search(r"step 5,000/12,000 +loss 0\.2500 +left \d", last)
    assert "5/10" in last or columns == 80
    assert last.split()[1].startswith("seq")


def test_quiet_shows_nothing_and_reads_nothing(capsys):
    loss = Loss()
    progress = open_progress(5, quiet=True)
    assert isinstance(progress, NullProgress)
    with progress:
        progress.begin(method="m", task_index=0, task_count=1, task_name="t")
        progress.update(5, loss)
        progress.note("text")
    assert loss.readings == 0
    assert capsys.readouterr() == ("", "")


def test_lines_go_to_standard_error(capsys):
    with open_progress(0) as progress:
        progress.note("a note")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a note\n[100%] done: step 0/0 in 0s\n"


@pytest.mark.parametrize("total", [-1, 1.5, True, "10"])
def test_bad_total_is_one_line(total):
    with pytest.raises(InputError, match=r"^total_steps: got .*whole number[^\n]*$"):
        open_progress(total)
