"""Suite `adapters`: compress, add and export for 10, 50, 200 and 1,000 adapters, beside lorashare and vlora.

Whole commands, as one types them, and in process: the same job from folders on disk to a set on disk in a process that
has everything imported. k = 32 columns for all three. The error is that of exported adapters against the originals,
read and computed without any of the three (`adapter_files`); it stands beside every time. lorashare's command cannot
add.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.adapter_files import CONFIG, SHARED, best, error, make, pairs, weight
from experiments.bench.peer import ROOT, Peer
from experiments.bench.steps import OURS
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.timing import Case, Key, Rounds, fastest, ratio
from share_jax.cli.main import main as share_jax_command
from share_jax.errors import ShareError, message

COUNTS = (10, 50, 200, 1000)
BARRED, ONCE = 50, 1000
"""Bars are read from 50 adapters; with 1,000 each whole command is run once, and nothing in process."""
SAMPLES = 5
"""Adapters that are exported for the error, evenly spread."""
SCALES = {OURS: 1.0, "lorashare": 1.0, "vlora": CONFIG["lora_alpha"] / CONFIG["r"]}
"""vlora forgets alpha; its exports are given the scale that they lack before they are compared."""

Job = Callable[[str, Sequence[Path], Path, str, Path], float]
"""(job, folders, set, task, where exports go) to seconds."""


@dataclass(frozen=True)
class System:
    """A compressor: its whole commands by job, None for what it has no command for, and the same in process."""

    name: str
    commands: Callable[[str, Sequence[Path], Path, str, Path], list[str] | None]
    in_process: Job


def our_arguments(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> list[str]:
    """What `share-jax` is given for a job."""
    if job == "compress":
        return ["compress", *map(str, folders), "-o", str(out), "--k", str(SHARED), "--overwrite"]
    if job == "add":
        return ["add", str(out), str(folders[0])]
    return ["export", str(out), task, "-o", str(into), "--overwrite"]


def ours() -> System:
    """`share-jax`."""

    def commands(*job: Any) -> list[str]:
        return [sys.executable, "-m", "share_jax.cli", *our_arguments(*job)]

    def in_process(*job: Any) -> float:
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = share_jax_command(our_arguments(*job))
        seconds = time.perf_counter() - began
        if status:
            raise failed(f"share-jax {job[0]}", status, said.getvalue())
        return seconds

    return System(OURS, commands, in_process)


def failed(what: str, status: int, said: str) -> ShareError:
    """The error of a command that did not do its job, with the end of what it said."""
    end = " ".join(said.split())[-300:] or "without a word"
    return ShareError(message(what, got=f"exit status {status} ({end})", expected="0", fix="run it by hand"))


def peers(peer: Peer) -> list[System]:
    """lorashare and vlora."""

    def lorashare(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> list[str] | None:
        call = peer.command("from lorashare.cli import main; main()")
        if job == "compress":
            return [*call, "compress", *map(str, folders), "-o", str(out), "-k", str(SHARED), "--device", "cpu"]
        return None if job == "add" else [*call, "reconstruct", str(out), "--adapter", task, "-o", str(into)]

    def vlora(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> list[str]:
        call = peer.command("from vlora.cli import cli; cli()")
        if job == "compress":
            return [*call, "compress", *map(str, folders), "-o", str(out), "-k", str(SHARED)]
        if job == "add":
            return [*call, "add", str(out), str(folders[0]), "--task-id", task, "--incremental"]
        return [*call, "export", str(out), task, "-o", str(into)]

    def in_process(name: str) -> Job:
        peer.make(name, name)

        def run(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> float:
            paths = {"folders": [str(folder) for folder in folders], "out": str(out), "into": str(into)}
            return float(peer.ask("run", key=name, job=job, k=SHARED, task=task, **paths)["seconds"])

        return run

    return [System("lorashare", lorashare, in_process("lorashare")), System("vlora", vlora, in_process("vlora"))]


def command(words: Sequence[str], environment: dict[str, str], facts: dict[str, Any]) -> float:
    """Runs a whole command; its wall time. Its peak memory is noted among the facts."""
    began = time.perf_counter()
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=ROOT
    ) as process:
        assert process.stderr is not None, "it is a pipe"
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise failed(" ".join(words[:4]), process.returncode, said.decode())
    facts["peak_bytes"] = max(facts.get("peak_bytes", 0), usage.ru_maxrss * 1024)
    return seconds


def errors_of(system: System, made: Path, folders: Sequence[Path], work: Path) -> float:
    """The mean error of some of a set's adapters, as exported."""
    found = []
    for folder in folders[:: max(1, len(folders) // SAMPLES)][:SAMPLES]:
        into = work / f"exported-{system.name}"
        system.in_process("export", folders, made, folder.name, into)
        found.append(error(folder, pairs(into), SCALES[system.name]))
    return float(np.mean(found))


def cases_of(
    system: System,
    folders: Sequence[Path],
    new: Path,
    work: Path,
    environment: dict[str, str],
    *,
    whole: bool,
    every: int,
) -> list[Case]:
    """All of one system's cases for so many adapters; makes the set that is added to and exported from.

    Args:
        system: the compressor.
        folders: what is compressed.
        new: what is added.
        work: where sets are written.
        environment: of whole commands.
        whole: whether adding and exporting are run as whole commands, too.
        every: adding and exporting take part in every so many rounds.
    """
    made, task = work / f"set-{system.name}", folders[0].name
    shutil.rmtree(made, ignore_errors=True)
    start, cases, once = f"{len(folders):,} adapters: ", [], len(folders) >= ONCE
    peak: dict[str, Any] = {}
    if once:
        seconds = command(system.commands("compress", folders, made, "", work) or [], environment, peak)
    else:
        seconds = system.in_process("compress", folders, made, "", work)
    shared = {"error": errors_of(system, made, folders, work), "bytes": weight(made)}

    def case(job: str, in_process: bool) -> None:
        out, into = work / f"{job}-{system.name}", work / f"into-{system.name}"
        at, with_ = (made, folders[:1]) if job == "export" else (out, folders if job == "compress" else [new])
        arguments = job, with_, at, new.name if job == "add" else task, into
        words, facts = system.commands(*arguments), dict(shared)
        if not in_process and words is None:
            return

        def run() -> float:
            if job == "add":
                shutil.rmtree(out, ignore_errors=True)
                shutil.copytree(made, out)
            elif job == "compress":
                shutil.rmtree(out, ignore_errors=True)
            return system.in_process(*arguments) if in_process else command(words or [], environment, facts)

        name = f"{start}{job}, {'in process' if in_process else 'whole command'}"
        cases.append(Case(name, system.name, run, facts, 1 if job == "compress" else every, warm=in_process))

    if once:
        name = f"{start}compress, whole command"
        cases.append(Case(name, system.name, lambda: seconds, {**shared, **peak}, warm=False))
    else:
        case("compress", False)
        for job in ("compress", "add", "export"):
            case(job, True)
    for job in ("add", "export") if whole else ():
        case(job, False)
    return cases


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite, one number of adapters after the other; what no bar is read from is repeated less often."""
    systems = [ours(), *(peers(peer) if peer else [])]
    ours_environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parts, counts = [], [n for n in ((5,) if options.tiny else COUNTS) if options.takes(f"{n} adapters")]
    every = make(options.folder / "adapters", max(counts, default=0) + 1)
    for count in counts:
        share = 1 if count == BARRED or options.tiny else options.rounds if count >= ONCE else 10
        rounds = max(1, options.rounds // share)
        folders, new = every[:count], every[count]
        work = options.folder / f"adapters-{count}"
        work.mkdir(parents=True, exist_ok=True)
        cases: list[Case] = []
        for system in systems:
            environment = ours_environment if system.name == OURS or peer is None else peer.environment
            options.notify(f"preparing {count:,} adapters with {system.name}")
            slow = max(1, rounds // 2)
            whole = not options.tiny
            cases += cases_of(system, folders, new, work, environment, whole=whole, every=slow)
        times, rows = raced(cases, rounds, options)
        found = ratios_of(times, rows, count)
        if count <= BARRED:
            least = float(np.mean(best(folders, SHARED)))
            mean = next(row["error"] for row in rows if row["system"] == OURS)
            found[f"{count:,} adapters: error, ours / best possible"] = mean / least if least else 1.0
        parts.append(SuiteResult(rows, found))
        shutil.rmtree(work)
    return merged_results(parts)


def ratios_of(times: dict[Key, dict[int, float]], rows: Sequence[dict[str, Any]], count: int) -> dict[str, float]:
    """Ours to the faster peer, job by job, and our error to the peers'."""
    found: dict[str, float] = {}
    errors = {row["system"]: row["error"] for row in rows}
    for job in ("compress", "add", "export"):
        for how in ("whole command", "in process"):
            name = f"{count:,} adapters: {job}, {how}"
            several: dict[str, Rounds] = {n: times[name, n] for n in ("lorashare", "vlora") if (name, n) in times}
            if several and (name, OURS) in times:
                found[f"{name}, ours / faster peer"] = ratio(times[name, OURS], fastest(list(several.values())))
            if several and job == "compress" and how == "whole command":
                quick = min(several, key=lambda n: float(np.median(list(several[n].values()))))
                found[f"{count:,} adapters: error, ours / faster peer"] = errors[OURS] / errors[quick]
                least = min(errors[n] for n in several)
                found[f"{count:,} adapters: error, ours / best peer"] = errors[OURS] / least
    return found
