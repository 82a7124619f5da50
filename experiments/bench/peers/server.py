"""The peer's side of `experiments.bench.peer`: builds what it is told, runs it, and answers with seconds."""

import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from experiments.bench.peers.protocol import Kinds, Runnable

MALLOC = Path(__file__).parents[3] / "share_jax" / "runtime" / "malloc.py"
"""Read as a file: what the package itself needs is not installed beside the peers."""

PLAIN = "--plain"
"""Given where memory is measured: freed memory goes back to the system."""

PACKAGES = ("torch", "transformers", "peft", "lorashare", "vlora-dev", "llama-cpp-python", "safetensors", "numpy")


def versions() -> dict[str, str | None]:
    """Versions by package, None where one is not installed."""

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: of(package) for package in PACKAGES}


def serve(kinds: Kinds, lines: TextIO, answers: TextIO, threads: Callable[[int], None] = lambda count: None) -> None:
    """Answers every line until there are no more.

    Args:
        kinds: what can be made, by name.
        lines: one JSON object each.
        answers: where the answers go, one line each.
        threads: is told how many threads to use.
    """
    made: dict[str, Runnable] = {}

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        do, key = message.pop("do"), message.pop("key", None)
        if do == "hello":
            threads(message["threads"])
            return {"versions": versions(), "threads": message["threads"]}
        if do == "make":
            made[key] = kinds[message.pop("kind")](**message)
            return {"facts": made[key].facts}
        if do == "run":
            return made[key].run(**message)
        if do == "drop":
            made.pop(key, None)
            return {}
        raise ValueError(f"nothing is called {do!r}")

    for text in lines:
        try:
            found = answer(json.loads(text))
        except Exception as error:  # whatever went wrong in a peer goes back as one line, and in full to stderr
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:400]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def main() -> None:
    """Serves on stdin and stdout; what the libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if PLAIN not in sys.argv[1:]:
        runpy.run_path(str(MALLOC))["keep_freed"]()  # as on our side
    from experiments.bench.peers.kinds import KINDS, use_threads

    serve(KINDS, sys.stdin, answers, use_threads)


if __name__ == "__main__":
    main()
