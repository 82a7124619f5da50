"""What stands for a run in a process of its own, in tests of how processes are begun and ended."""

import os
import signal
import sys
import threading
import time
from typing import Any

from experiments.tables import jobs

STOPPED = 3


def work(config: Any, core: int, again: str) -> None:
    """Notes its core and, after the run's fate, how it ended; the fate is the folder's name up to its first hyphen."""
    folder, fate = config.workdir, config.workdir.name.partition("-")[0]

    def stopped(number: int, frame: Any) -> None:
        folder.mkdir(exist_ok=True)  # it may be told to stop before it has begun
        (folder / "stopped").write_text(again)
        sys.exit(STOPPED)

    signal.signal(signal.SIGTERM, stopped)
    if fate == "waits":
        threading.Thread(target=jobs.end_with_parent, daemon=True).start()
    folder.mkdir(exist_ok=True)
    (folder / "core").write_text(str(core))
    if fate == "fails":
        sys.exit(2)
    while fate == "waits":
        time.sleep(0.01)
    if fate == "stops":
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
