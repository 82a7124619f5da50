"""The same run on one device, over meshes and on two processes: the same accuracies in results.json."""

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from process_group import environment, free_port, printed_by
from small_run import SMALL, matrices
from tiny_run import tiny_vit

from experiments import run as run_module
from experiments.config.run_config import command_line, parse
from experiments.devices import Devices, open_devices
from share_jax.sharding.compiled_memory import Memory, memory_of

METHODS = ["--methods", "shared_a,share,joint", "--save-every", "3"]


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """Every run here uses the tiny model."""
    from experiments.config import digits5

    patch = pytest.MonkeyPatch()
    patch.setattr(digits5, "digits_vit", tiny_vit)
    yield
    patch.undo()


def go(folder: Path, *more: str) -> int:
    return run_module.main([*SMALL, *METHODS, "--workdir", str(folder), *more])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The accuracies on one device."""
    folder = tmp_path_factory.mktemp("one") / "run"
    assert go(folder) == 0
    return matrices(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--mesh", "data=8"],
        ["--mesh", "data=2,fsdp=2,tensor=2", "--remat", "nothing"],
        ["--mesh", "fsdp=4,tensor=2", "--accumulate", "2"],
    ],
    ids=" ".join,
)
def test_a_mesh_gives_the_accuracies_of_one_device(one: dict, tmp_path: Path, flags: list[str]) -> None:
    assert go(tmp_path / "run", *flags) == 0
    assert matrices(tmp_path / "run") == one


@pytest.mark.slow
def test_a_run_that_was_stopped_on_a_mesh_goes_on_on_one_device(
    one: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.report.progress import NullProgress

    count = 0

    def update(self: NullProgress, steps_done_delta: int = 1, loss: object = None) -> None:
        nonlocal count
        count += 1
        if count == 13:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NullProgress, "update", update)
        assert go(tmp_path / "run", "--mesh", "data=4,fsdp=2") == 130
    assert go(tmp_path / "run", "--resume") == 0
    assert matrices(tmp_path / "run") == one


def test_the_memory_of_a_step_is_told_once_compiled_and_not_when_quiet(capsys: pytest.CaptureFixture) -> None:
    told: list[str] = []
    words = [*SMALL[:4], "--batch-size", "16", "--mesh", "data=8"]
    devices = open_devices(parse(words))
    assert devices.mesh is not None
    assert devices.mesh.shape["data"] == 8
    devices.tell("a line")
    assert capsys.readouterr().err == "a line\n"
    open_devices(parse([*words, "--quiet"])).tell("a line")
    assert capsys.readouterr().err == ""
    memory = memory_of(jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((64, 64), "float32")).compile())
    assert isinstance(memory, Memory)
    assert memory.arguments == memory.outputs == 64 * 64 * 4
    assert Devices(tell=told.append).mesh is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mesh", "data=3"], "--batch-size: got 32, expected a multiple of 3"),
        (["--mesh", "data=16"], "mesh: got data=16,fsdp=1,tensor=1 for 16 devices, expected one for 8"),
        (["--mesh", "batch=8"], "mesh: got 'batch=8', expected AXIS=NUMBER of data, fsdp, tensor"),
        (["--accumulate", "5"], "--batch-size: got 32, expected a multiple of 5"),
    ],
)
def test_shapes_that_do_not_fit_are_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture, flags: list[str], words: str
) -> None:
    assert go(tmp_path / "run", *flags) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]


def test_the_mesh_is_in_the_command_and_may_change_when_a_run_is_resumed() -> None:
    from experiments.workdir import _work

    config = parse([*SMALL, "--mesh", "data=8", "--accumulate", "2", "--remat", "dots", "--distributed"])
    words = command_line(config)
    assert "--mesh data=8" in words
    assert "--remat dots" in words
    assert "distributed" not in words
    assert _work(config) == _work(parse([*SMALL, "--accumulate", "2", "--remat", "dots"]))


PROCESS = """
import json, signal, sys
from pathlib import Path
from experiments import run
from experiments.config import digits5
from experiments.config.run_config import parse
from tiny_run import tiny_vit
digits5.digits_vit = tiny_vit
status = run.main(sys.argv[1:])
import jax
print(json.dumps({"status": status, "processes": jax.process_count()}), flush=True)
signal.pause()
"""


@pytest.mark.slow
def test_two_processes_make_one_run(one: dict, tmp_path: Path) -> None:
    """Each feeds its own half of every batch; one report is written; both end with status 0."""
    folder, port = tmp_path / "run", free_port()
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    group = {"XLA_FLAGS": flags, "JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}

    def words(index: int) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-c", PROCESS, *SMALL, *METHODS, "--workdir", str(folder), "--distributed"]
        return command, environment(**group, JAX_PROCESS_ID=str(index))

    assert printed_by(2, words, tmp_path / "process", 400) == [{"status": 0, "processes": 2}] * 2
    assert matrices(folder) == one
