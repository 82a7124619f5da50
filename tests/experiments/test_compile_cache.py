"""`--compile-cache` keeps compiled programs, which the next process finds."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
import jax
from experiments.run import _keep_compiled
jax.jit(lambda x: x - 1)(1.0)  # something is compiled before the folder is known
_keep_compiled(Path(sys.argv[1]))
found = []
jax.monitoring.register_event_listener(lambda event, **kwargs: found.append(event))
jax.jit(lambda x: x * 3 + 1)(2.0)
print(found.count("/jax/compilation_cache/cache_hits"))
"""


def run(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


def test_the_second_process_compiles_nothing(tmp_path):
    assert run(tmp_path) == "0\n"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert any(name.startswith("jit_") for name in kept)
    assert run(tmp_path) == "1\n"
