"""Shape annotations hold: a room's own tests run with every array argument and result checked."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("linalg", "adapters", "subspace", "parameterizations", "ops", "bank")


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_annotations_hold(room: str) -> None:
    packages = ",".join(f"share_jax.{name}" for name in ROOMS)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{room}"]
    flag = f"--jaxtyping-packages={packages},shapes.checked"
    done = subprocess.run([sys.executable, *words, flag], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
