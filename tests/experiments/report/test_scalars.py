"""Scalar logs: what a run found, in a file that TensorBoard's own reader understands, and never twice."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import tiny_vit

from experiments import run as run_module
from experiments.report.event_file import NAME, EventFile, Scalar, read_scalars
from experiments.report.progress import NullProgress
from experiments.report.results import load_results

RUN = ["--experiment", "digits5", "--preset", "quick", "--steps", "8", "--quiet", "--eval-batch-size", "64"]
RUN += ["--num-basis", "12", "--phi", "4", "--save-every", "3"]
LOGGED = ("shared_a", "share", "joint")


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    from experiments.config import digits5

    patch = pytest.MonkeyPatch()
    patch.setattr(digits5, "digits_vit", tiny_vit)
    yield
    patch.undo()


def go(folder: Path, *more: str) -> int:
    return run_module.main([*RUN, "--scalars", "tensorboard", "--workdir", str(folder), *more])


def log(folder: Path, method: str) -> list[Scalar]:
    return read_scalars(folder / "scalars" / method / "seed-0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert go(folder, "--methods", LOGGED[0]) == 0
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "run"
    assert go(folder, "--methods", ",".join(LOGGED)) == 0
    return folder


@pytest.mark.parametrize("made", ["whole", pytest.param("several", marks=pytest.mark.slow)])
def test_every_step_has_its_loss_and_every_task_its_accuracies(made: str, request: pytest.FixtureRequest) -> None:
    whole = request.getfixturevalue(made)
    methods = load_results(whole / "results.json")["methods"]
    assert tuple(methods) == (LOGGED[:1] if made == "whole" else LOGGED)
    for name in methods:
        found = log(whole, name)
        losses = [scalar for scalar in found if scalar.tag == "loss"]
        assert [scalar.step for scalar in losses] == list(range(1, 41))
        matrix = methods[name]["runs"][0]["accuracy_matrix"]
        for scalar in found:
            if scalar.tag.startswith("accuracy/"):
                on = int(scalar.tag[len("accuracy/") :].split()[0]) - 1
                assert scalar.value == pytest.approx(matrix[scalar.step // 8 - 1][on], abs=1e-6)
        known = sum(value is not None for row in matrix for value in row)
        assert sum(scalar.tag.startswith("accuracy/") for scalar in found) == known
        (last,) = [s.value for s in found if s.tag == "accuracy_of_tasks_learnt" and s.step == 40]
        assert last == pytest.approx(methods[name]["runs"][0]["acc"], abs=1e-6)


class Stopped(BaseException):
    """Stands for a kill."""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "updates"), [("shared_a", 13), ("share", 23)])
def test_a_resumed_run_goes_on_without_gap_or_repetition(
    several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, updates: int
) -> None:
    """Stopped between two checkpoints: losses after the last one are logged again, in place of the first ones."""
    count = 0

    def update(self: NullProgress, steps_done_delta: int = 1, loss: object = None) -> None:
        nonlocal count
        count += steps_done_delta
        if count == updates:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(NullProgress, "update", update)
        with pytest.raises(Stopped):
            go(tmp_path / "broken", "--methods", method)
    assert max(step for _, step, _ in log(tmp_path / "broken", method)) == updates
    assert go(tmp_path / "broken", "--methods", method, "--resume") == 0
    found = log(tmp_path / "broken", method)
    assert found == log(several, method)
    assert max(Counter((tag, step) for tag, step, _ in found).values()) == 1


def test_tensorboards_format_is_read_by_another_reader(whole: Path) -> None:
    """TFRecord's framing read by hand: the version comes first and no length is off."""
    import struct

    from tensorboardX.proto.event_pb2 import Event

    content, start, events = (whole / "scalars" / "shared_a" / "seed-0" / NAME).read_bytes(), 0, []
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        events.append(Event.FromString(content[start + 12 : start + 12 + length]))
        start += length + 16
    assert start == len(content)
    assert events[0].file_version == "brain.Event:2"
    times = [event.wall_time for event in events]
    assert times == sorted(times)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    file = EventFile(tmp_path, lambda scalar: True)
    file.write([Scalar("loss", step, step / 4) for step in range(3)])
    file.close()
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-cut])
    assert [scalar.step for scalar in read_scalars(tmp_path)] == [0, 1]
    file = EventFile(tmp_path, lambda scalar: True)
    file.write([Scalar("loss", 2, 0.5)])
    file.close()
    assert read_scalars(tmp_path) == [Scalar("loss", step, step / 4) for step in range(3)]


def test_without_the_flag_nothing_is_logged(tmp_path: Path) -> None:
    assert run_module.main([*RUN, "--methods", "majority", "--workdir", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "scalars").exists()
