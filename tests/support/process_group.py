"""Several processes of one program over loopback, as `share_jax.runtime.processes` joins them."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """That of a process which finds the package and the tests' support."""
    path = [str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **more}


def printed_by(
    count: int, words_of: Callable[[int], tuple[Sequence[str], dict[str, str]]], logs: Path, timeout: float
) -> list[dict]:
    """The first JSON that each process prints; all are ended with SIGKILL whatever happens.

    Args:
        count: processes.
        words_of: command and environment of each by its index.
        logs: their errors go to files of this name with ".INDEX.err" behind it.
        timeout: seconds after which they are killed.
    """
    files = [logs.with_name(f"{logs.name}.{index}.err") for index in range(count)]
    started = []
    for index, file in enumerate(files):
        words, env = words_of(index)
        with file.open("w") as errors:
            started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=env))
    guard = threading.Timer(timeout, lambda: [process.kill() for process in started])
    guard.start()
    try:
        # Gloo writes lines of its own to stdout.
        lines = [next((text for text in process.stdout if text.startswith("{")), "") for process in started]
    finally:
        guard.cancel()
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    assert all(lines), "\n".join(file.read_text()[-3000:] for file in files)
    return [json.loads(text) for text in lines]
