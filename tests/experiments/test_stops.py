"""What stops a run: SIGTERM, a loss that is no number, a second run, a full disk, damage: one line, nothing lost."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import findings
from tiny_run import tiny_vit

from experiments import devices, workdir
from experiments import run as run_module
from experiments.algorithms import loop
from experiments.config import digits5
from experiments.report.progress import NullProgress
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.runtime.preemption import Preemption
from share_jax.storage import lock

FLAGS = ["--experiment", "digits5", "--preset", "quick", "--quiet", "--eval-batch-size", "64", "--methods", "shared_a"]
FLAGS += ["--steps", "4", "--save-every", "2"]
STORE = Path("checkpoints/shared_a/seed-0")
LATER = partial(pytest.param, marks=pytest.mark.faults)


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """The tiny model, and no watcher that could end the test process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits5, "digits_vit", tiny_vit)
        patch.setattr(run_module, "Preemption", partial(Preemption, grace=1e6, patience=1e6))
        yield


def go(folder: Path, *more: str) -> int:
    return run_module.main([*FLAGS, "--workdir", str(folder), *more])


def one_error(capsys: pytest.CaptureFixture) -> str:
    """The one line of error; nothing else that looks like one."""
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    found = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(found) == 1, errors
    return found[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went through."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert go(folder) == 0
    return folder


def asking(original: Callable, when: Callable[..., bool]) -> Callable:
    """The function, which asks this process to stop before it does its work."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    return function


@pytest.mark.slow
def test_sigterm_in_a_compilation_a_step_a_save_and_an_evaluation_loses_no_step(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Five lives of one run: the steps that are trained over all of them are those of one."""
    trained: list[int] = []
    update = NullProgress.update

    def counted(self: NullProgress, steps_done_delta: int = 1, loss: object = None) -> None:
        trained.append(1)
        update(self, steps_done_delta, loss)

    def after(steps: int) -> Callable[..., bool]:
        return lambda *args, **kwargs: len(trained) == steps

    lives = [
        (devices, "make_train_step", lambda *args, **kwargs: True, "nothing was in flight"),
        (NullProgress, "update", after(6), "shared_a saved at step 3 of task "),
        (ckpt, "save_inflight", after(10), "shared_a saved at step 2 of task "),
        (loop, "outputs_of", after(16), "shared_a saved at step 4 of task "),
        (ckpt, "save_task", after(16), "nothing was in flight"),
    ]
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as outer:
        outer.setattr(NullProgress, "update", counted)
        for number, (where, name, when, words) in enumerate(lives):
            resume = ["--resume"] if number else []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(where, name, asking(getattr(where, name), when))
                assert go(folder, *resume) == 0
            told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("terminated: ")]
            assert len(told) == 1
            assert words in told[0]
            assert told[0].endswith("add --resume to go on")
            assert not (folder / "results.json").exists()
        assert go(folder, "--resume") == 0
    assert len(trained) == 5 * 4
    assert findings(folder) == findings(whole)


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        pytest.param(1, 0, marks=pytest.mark.faults),
        pytest.param(3, 2, marks=pytest.mark.slow),
        pytest.param(4, 2, marks=pytest.mark.faults),
    ],
)
def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_state_before(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture, step: int, kept: int
) -> None:
    """In the second task, also between two saves; what was saved is good, and without the fault it ends as ever."""
    folder, pipeline_of = tmp_path / "run", loop.task_pipeline_of

    def poisoned(job: Any, index: int) -> Any:
        def change(number: int, batch: dict[str, Any]) -> dict[str, Any]:
            nan = {"images": np.full_like(batch["inputs"]["images"], np.nan)}
            return {**batch, "inputs": nan} if (index, number) == (1, step - 1) else batch

        pipeline = pipeline_of(job, index)
        return replace(pipeline, dataset=pipeline.dataset.map_with_index(change))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "task_pipeline_of", poisoned)
        assert go(folder) == 2
    name = ckpt.open_checkpoint(whole / STORE).names[1]
    error = one_error(capsys)
    assert f"loss of shared_a, task '{name}', step {step}: got nan" in error
    assert "--learning-rate, now 0.002 (" in error
    store = ckpt.open_checkpoint(folder / STORE)
    assert len(store.names) == 1
    assert (store.manifest.inflight["info"]["step"] if store.manifest.inflight else 0) == kept
    if step == 3:
        assert go(folder, "--resume") == 0
        assert findings(folder) == findings(whole)


def test_an_update_that_is_no_number_is_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A rate so high that the first update overflows, and a save right after it: the loss it followed was finite."""
    assert go(tmp_path / "run", "--learning-rate", "3e38", "--save-every", "1", "--weight-decay", "1e3") == 2
    assert "task '" in one_error(capsys)
    store = ckpt.open_checkpoint(tmp_path / "run" / STORE)
    assert store.names == ()
    assert store.manifest.inflight is None


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_second_run_in_one_workdir_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != lock.FILE}
    with lock.hold(folder):
        assert go(folder, flag) == 2
    assert f"folder {folder}: got a lock of this process itself" in one_error(capsys)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != lock.FILE}
    assert after == before


def test_overwriting_removes_the_note_last(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    removed: list[str] = []

    def rmtree(path: Path) -> None:
        removed.append(path.name)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workdir.shutil, "rmtree", rmtree)
        assert go(folder, "--overwrite") == 130
    assert removed
    assert (folder / "run.json").exists()


def test_a_kill_before_the_run_is_noted_leaves_a_folder_that_can_be_used(tmp_path: Path) -> None:
    for name in (".run.json.tmp", lock.FILE):
        (tmp_path / name).write_text("")
    assert go(tmp_path, "--methods", "majority") == 0


def test_a_run_that_ended_before_it_had_anything_is_in_nobodys_way(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its note is replaced by that of the corrected command; only --resume holds the two against each other."""
    (tmp_path / "run.json").write_text('{"run": "another"}')
    assert go(tmp_path, "--methods", "majority", "--resume") == 2
    assert "--resume: got python" in one_error(capsys)
    assert go(tmp_path, "--methods", "majority") == 0


def damaged(folder: Path, pattern: str) -> Path:
    """Flips a bit of the first file that matches."""
    file = next(path for path in sorted(folder.glob(pattern)) if path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file


PARTS = [
    pytest.param("tasks/0002.*/_METADATA", "task '", "the last good state, after task '", id="task"),
    *(
        pytest.param(*part, marks=pytest.mark.faults, id=name)
        for name, part in {
            "first task": ("tasks/0000.*/**/d/*", "task '", "the last good state, the start"),
            "shared": ("shared/*/**/d/*", "the shared tree", "the last good state, the start"),
            "manifest": ("manifest.json", "manifest.json", "its copy manifest.copy.json is whole"),
            "copy": ("manifest.copy.json", "the manifest", "the last good state, after task '"),
            "note": ("../../../run.json", "run.json", "--repair"),
        }.items()
    ),
]


@pytest.mark.parametrize(("pattern", "part", "offer"), PARTS)
def test_damage_is_named_and_repaired_to_the_same_findings(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture, pattern: str, part: str, offer: str
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    file = damaged(folder / STORE, pattern)
    before = file.read_bytes()
    assert go(folder, "--resume") == 2
    error = one_error(capsys)
    assert file.name in error
    assert part in error
    assert offer in error
    assert "--repair" in error
    assert file.read_bytes() == before
    assert go(folder, "--resume", "--repair") == 0
    assert findings(folder) == findings(whole)
    assert go(folder, "--resume") == 0


@pytest.mark.faults
@pytest.mark.parametrize("parts", [("inflight/1",), ("inflight/0",), ("inflight/0", "inflight/1")])
def test_damage_of_the_training_in_flight_falls_back_on_the_state_before(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture, parts: tuple[str, ...]
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        count: list[int] = []
        patch.setattr(
            NullProgress, "update", asking(NullProgress.update, lambda *a: count.append(1) or len(count) == 7)
        )
        assert go(folder) == 0
    capsys.readouterr()
    for part in parts:
        damaged(folder / STORE / part, "**/*")
    assert go(folder, "--resume") == 2
    assert "in flight in" in one_error(capsys)
    assert go(folder, "--resume", "--repair") == 0
    assert findings(folder) == findings(whole)


@pytest.mark.faults
def test_a_full_disk_is_one_line_and_with_more_space_the_run_goes_on(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small tmpfs needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        assert go(small / "run") == 2
        error = one_error(capfd)
        assert "No space left on device" in error
        assert "kept in" in error
        done = ckpt.open_checkpoint(small / "run" / STORE).names
        assert go(small / "run", "--resume") == 2
        after = ckpt.open_checkpoint(small / "run" / STORE).names
        assert after[: len(done)] == done  # with the failed save's remains swept, one more may fit
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert go(small / "run", "--resume") == 0
        assert findings(small / "run") == findings(whole)
    finally:
        subprocess.run(["umount", str(small)], check=True)
