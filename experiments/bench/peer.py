"""The other side of the race: a peer's runtime in a process of its own, told over a pipe what to build and to run.

Two runtimes in one process fight over threads. So the peer lives in one long process of another interpreter; it idles,
blocked on its pipe, while we run, and the other way round. One JSON object per line goes each way:

    {"do": "hello"}                                    {"versions": {...}, "threads": 2}
    {"do": "make", "key": K, "kind": NAME, ...spec}    {"facts": {...}}
    {"do": "run", "key": K, ...arguments}              {"seconds": 0.1, ...}
    {"do": "drop", "key": K}                           {}

and {"error": "one line"} where something failed. Seconds are measured on the peer's side, so the pipe costs nothing.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench.timing import Case
from share_jax.errors import ShareError, message

ROOT = Path(__file__).parents[2]
SERVER = ("-m", "experiments.bench.peers.server")


class PeerError(ShareError):
    """A peer did not do what it was told."""


class Peer:
    """A running peer. Use it as a context: leaving it ends the process.

    Attributes:
        python: the interpreter of the environment in which the peers are installed.
        versions: of the peers' packages.
    """

    def __init__(self, python: Path, threads: int, server: Sequence[str] = SERVER) -> None:
        """Starts the process and asks for its versions.

        Raises:
            PeerError: it does not start, or a package is missing.
        """
        self.python = python
        many = str(threads)
        settings = {"OMP_NUM_THREADS": many, "MKL_NUM_THREADS": many, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        settings["TOKENIZERS_PARALLELISM"] = "false"
        self.environment = {**os.environ, **settings}
        self.environment.pop("OPENBLAS_NUM_THREADS", None)
        try:
            self.process = subprocess.Popen(
                [str(python), *server],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=self.environment,
            )
        except OSError as error:
            fix = "pass an interpreter that has experiments/bench/peers.txt installed, or run make peers"
            raise PeerError(message("--peers", got=error, expected="a Python interpreter", fix=fix)) from error
        self.versions: dict[str, Any] = self.ask("hello", threads=threads)["versions"]

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def ask(self, do: str, **parts: Any) -> dict[str, Any]:
        """One message there, one answer back.

        Raises:
            PeerError: the peer reports an error, or has ended.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None, "it is a pipe"
        assert stdout is not None, "it is a pipe"
        answer = ""
        try:
            stdin.write(json.dumps({"do": do, **parts}) + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            status = self.process.poll()
            fix = "read what it printed above; make peers installs what it needs"
            got = f"an end with status {status}" if status is not None else "silence"
            raise PeerError(message(f"peer, asked to {do}", got=got, expected="an answer", fix=fix))
        found = json.loads(answer)
        if "error" in found:
            fix = "see experiments/bench/peers.txt for the versions that this was written for"
            raise PeerError(message(f"peer, asked to {do}", got=found["error"], expected="no error", fix=fix))
        return found

    def make(self, key: str, kind: str, **spec: Any) -> dict[str, Any]:
        """Builds a thing that can be run, and returns its facts."""
        return self.ask("make", key=key, kind=kind, **spec).get("facts", {})

    def runner(self, key: str, **arguments: Any) -> Callable[[], float]:
        """A case's `run` for a thing that was made."""
        return lambda: float(self.ask("run", key=key, **arguments)["seconds"])

    def case(self, case: str, system: str, kind: str, *, every: int = 1, **spec: Any) -> Case:
        """Makes a thing and returns it as a case."""
        key = f"{case} {system}"
        facts = self.make(key, kind, **spec)
        return Case(case, system, self.runner(key), facts, every)

    def drop(self, keys: Sequence[str]) -> None:
        """Lets go of what was made."""
        for key in keys:
            self.ask("drop", key=key)

    def command(self, call: str) -> list[str]:
        """A whole command of a peer's: `call` is what its console script would run."""
        return [str(self.python), "-c", call]


def versions_of(peer: "Peer | None") -> Mapping[str, Any]:
    """A peer's versions, nothing without one."""
    return peer.versions if peer else {}
