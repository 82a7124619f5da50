"""Whole commands, each with its own time and peak memory; and the peak memory of this process.

A process that a large one starts inherits the large one's peak: Linux keeps it across `exec`. So commands are started
by an interpreter that has imported next to nothing, and a process reads the peak of what it is now.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = """
import json, os, signal, sys, time
told, limit, words = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
late = []
began = time.perf_counter()
running = os.posix_spawnp(words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, told)])
signal.signal(signal.SIGALRM, lambda *_: (late.append(1), os.kill(running, signal.SIGKILL)))
signal.setitimer(signal.ITIMER_REAL, limit)
_, status, usage = os.wait4(running, 0)
found = {
    "status": os.waitstatus_to_exitcode(status), "seconds": time.perf_counter() - began, "late": bool(late),
    "cpu_s": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024,
}
os.write(told, json.dumps(found).encode())
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        status: its exit status; negative where a signal ended it.
        seconds: of wall time.
        late: whether it was ended for it had reached its limit.
        cpu_s: seconds of processor time, its children's among them.
        peak_bytes: the most memory that it, or one of its children, held.
        said: what it printed to the streams that were asked for.
    """

    status: int
    seconds: float
    late: bool
    cpu_s: float
    peak_bytes: int
    said: str


def run_command(
    words: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    limit: float = 0.0,
    errors_alone: bool = False,
) -> Ended:
    """Runs a command to its end, or to its limit.

    Args:
        words: the command.
        environment: its environment.
        folder: where it runs.
        limit: seconds after which it is ended; 0 for none.
        errors_alone: whether what goes to stdout is dropped.
    """
    reading, writing = os.pipe()
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writing), str(limit), *words]
    out, errors = (subprocess.DEVNULL, subprocess.PIPE) if errors_alone else (subprocess.PIPE, subprocess.STDOUT)
    with subprocess.Popen(
        launcher, cwd=folder, env=dict(environment), pass_fds=(writing,), stdout=out, stderr=errors
    ) as process:
        os.close(writing)
        said = process.communicate()[1 if errors_alone else 0]
    with open(reading, "rb") as told:
        found = json.loads(told.read())
    return Ended(**found, said=said.decode(errors="replace"))


def own_peak() -> int:
    """Bytes: the most memory that this process has held since it became what it is."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
