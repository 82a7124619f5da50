"""Suite `adapters`: compress, add and export, beside lorashare and vlora: 10 to 1,000 adapters, and a 7B model's.

Whole commands, as one types them, and in process: the same job from folders on disk to a set on disk in a process that
has everything imported. Those of a 7B model as whole commands alone, with their peak memory, in turn for a few rounds.
A command that has not ended after `LIMIT` seconds is ended, and its row says so: a lower bound, in no ratio. k = 32
columns for all three; where that is more than there are adapters, vlora, whose k counts directions among whole
adapters, would keep them all, and gets a k with which its set is the next larger one. The error is that of exported
adapters against the originals, read and computed without any of the three (`adapter_files`); it stands beside every
time. lorashare's command cannot add.
"""

import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.adapter_files import (
    ALPHA_OVER_RANK,
    LARGE,
    LARGE_ALL,
    SHARED,
    SMALL,
    TINY,
    Model,
    best,
    error,
    make,
    pairs,
    weight,
)
from experiments.bench.commands import run_command
from experiments.bench.peer import ROOT, Peer
from experiments.bench.steps import OURS
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.timing import Case, Key, Rounds, fastest, ratio
from share_jax.cli.main import main as share_jax_command
from share_jax.errors import ShareError, message

MEMORY = 3 * 2**30
"""Bytes that compressing a 7B model's adapters may take at most."""
LIMIT = 400.0
"""Seconds after which a whole command is ended."""
ONCE_ROUNDS = 3
"""Rounds of what is run as whole commands alone."""
SAMPLES = 5
"""Adapters that are exported for the error, evenly spread."""
SCALES = {OURS: 1.0, "lorashare": 1.0, "vlora": ALPHA_OVER_RANK}
"""vlora forgets alpha; its exports are given the scale that they lack before they are compared."""

Job = Callable[[str, Sequence[Path], Path, str, Path], float]
"""(job, folders, set, task, where exports go) to seconds."""


@dataclass(frozen=True)
class Part:
    """So many adapters of a model.

    Attributes:
        name: as results and `--only` have it.
        model: what they are for.
        count: how many are compressed.
        share: repetitions, as a part of all; 0 for one.
        once: whole commands alone, in a few rounds: compressing in each, adding and exporting in the first.
        best: whether the error is compared with the best possible, which takes dense decompositions.
        vlora: its k.
    """

    name: str
    model: Model
    count: int
    share: float = 0.1
    once: bool = False
    best: bool = False
    vlora: int = SHARED


PARTS = (
    Part("10 adapters", SMALL, 10, best=True),
    Part("50 adapters", SMALL, 50, share=1, best=True),  # bars are read from these
    Part("200 adapters", SMALL, 200),
    Part("1,000 adapters", SMALL, 1000, once=True),
    Part("7B, q and v, 100 adapters", LARGE, 100, once=True),
    Part("7B, all kernels, 20 adapters", LARGE_ALL, 20, once=True, vlora=2),
)
TINY_PARTS = (Part("5 adapters", SMALL, 5, share=1, best=True), Part("7B, tiny, 3 adapters", TINY, 3, once=True))


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


def peers(peer: Peer, vlora_k: int) -> list[System]:
    """lorashare and vlora, the latter with a k of its own."""
    columns = {"lorashare": SHARED, "vlora": vlora_k}

    def lorashare(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> list[str] | None:
        call = peer.command("from lorashare.cli import main; main()")
        if job == "compress":
            k = str(columns["lorashare"])
            return [*call, "compress", *map(str, folders), "-o", str(out), "-k", k, "--device", "cpu"]
        return None if job == "add" else [*call, "reconstruct", str(out), "--adapter", task, "-o", str(into)]

    def vlora(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> list[str]:
        call = peer.command("from vlora.cli import cli; cli()")
        if job == "compress":
            return [*call, "compress", *map(str, folders), "-o", str(out), "-k", str(columns["vlora"])]
        if job == "add":
            return [*call, "add", str(out), str(folders[0]), "--task-id", task, "--incremental"]
        return [*call, "export", str(out), task, "-o", str(into)]

    def in_process(name: str) -> Job:
        peer.make(name, name)

        def run(job: str, folders: Sequence[Path], out: Path, task: str, into: Path) -> float:
            paths = {"folders": [str(folder) for folder in folders], "out": str(out), "into": str(into)}
            return float(peer.ask("run", key=name, job=job, k=columns[name], task=task, **paths)["seconds"])

        return run

    return [System("lorashare", lorashare, in_process("lorashare")), System("vlora", vlora, in_process("vlora"))]


class NotEndedError(ShareError):
    """A whole command had not ended when its time was over."""


def command(
    words: Sequence[str], environment: dict[str, str], facts: dict[str, Any], limit: float | None = None
) -> float:
    """Runs a whole command; its wall time. Its peak memory is noted among the facts.

    Raises:
        NotEndedError: it had not ended after the limit in seconds, `LIMIT` when None; it is ended.
        ShareError: it failed.
    """
    ended = run_command(words, environment, ROOT, limit=LIMIT if limit is None else limit, errors_alone=True)
    facts["peak_bytes"] = max(facts.get("peak_bytes", 0), ended.peak_bytes)
    if ended.late:
        got = f"not ended in {ended.seconds:.1f} s"
        raise NotEndedError(message(" ".join(words[:4]), got=got, expected="an end", fix="take fewer adapters"))
    if ended.status:
        raise failed(" ".join(words[:4]), ended.status, ended.said)
    return ended.seconds


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
    part: Part,
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
        part: what the folders are.
        whole: whether adding and exporting are run as whole commands, too.
        every: adding and exporting take part in every so many rounds.
    """
    made, task = work / f"set-{system.name}", folders[0].name
    shutil.rmtree(made, ignore_errors=True)
    start, cases, once = f"{part.name}: ", [], part.once
    peak: dict[str, Any] = {}
    if once:
        try:
            command(system.commands("compress", folders, made, "", work) or [], environment, peak)
        except NotEndedError:
            facts = {**peak, "not_ended_s": LIMIT}
            name = f"{start}compress, whole command"
            return [Case(name, system.name, lambda: LIMIT, facts, sys.maxsize, warm=False)]
    else:
        system.in_process("compress", folders, made, "", work)
    shared = {"error": errors_of(system, made, folders, work), "bytes": weight(made)}

    def case(job: str, in_process: bool) -> None:
        out, into = work / f"{job}-{system.name}", work / f"into-{system.name}"
        at, with_ = (made, folders[:1]) if job == "export" else (out, folders if job == "compress" else [new])
        arguments = job, with_, at, new.name if job == "add" else task, into
        words, facts = system.commands(*arguments), shared | (peak if job == "compress" and not in_process else {})
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

    case("compress", False)
    if not once:
        for job in ("compress", "add", "export"):
            case(job, True)
    for job in ("add", "export") if whole else ():
        case(job, False)
    return cases


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite, one number of adapters after the other; what no bar is read from is repeated less often."""
    ours_environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parts, wanted = [], [x for x in (TINY_PARTS if options.tiny else PARTS) if options.takes(x.name)]
    for part in wanted:
        model, count = part.model, part.count
        rounds = min(ONCE_ROUNDS, options.rounds) if part.once else max(1, round(options.rounds * part.share))
        made = make(options.folder / f"adapters-{model.name}-{len(model.kernels)}", count + 1, model)
        folders, new = made[:count], made[count]
        work = options.folder / part.name.replace(" ", "-")
        work.mkdir(parents=True, exist_ok=True)
        cases: list[Case] = []
        for system in [ours(), *(peers(peer, part.vlora) if peer else [])]:
            environment = ours_environment if system.name == OURS or peer is None else peer.environment
            options.notify(f"preparing {part.name} with {system.name}")
            slow, whole = rounds if part.once else max(1, rounds // 2), part.once or not options.tiny
            cases += cases_of(system, folders, new, work, environment, part=part, whole=whole, every=slow)
        times, rows = raced(cases, rounds, options)
        found = ratios_of(times, rows, part.name)
        if part.best:
            least = float(np.mean(best(folders, SHARED)))
            mean = next(row["error"] for row in rows if row["system"] == OURS)
            found[f"{part.name}: error, ours / best possible"] = mean / least if least else 1.0
        parts.append(SuiteResult(rows, found))
        shutil.rmtree(work)
    return merged_results(parts)


def ratios_of(times: dict[Key, dict[int, float]], rows: Sequence[dict[str, Any]], part: str) -> dict[str, float]:
    """Ours to the faster peer, job by job, and our error and a 7B model's peak memory to the peers'.

    A peer that has not ended is in none of them.
    """
    found: dict[str, float] = {}
    rows = [row for row in rows if "not_ended_s" not in row]
    times = {key: value for key, value in times.items() if key in {(row["case"], row["system"]) for row in rows}}
    errors = {row["system"]: row["error"] for row in rows}
    for job in ("compress", "add", "export"):
        for how in ("whole command", "in process"):
            name = f"{part}: {job}, {how}"
            several: dict[str, Rounds] = {n: times[name, n] for n in ("lorashare", "vlora") if (name, n) in times}
            if several and (name, OURS) in times:
                found[f"{name}, ours / faster peer"] = ratio(times[name, OURS], fastest(list(several.values())))
            if several and job == "compress" and how == "whole command":
                quick = min(several, key=lambda n: float(np.median(list(several[n].values()))))
                found[f"{part}: error, ours / faster peer"] = errors[OURS] / errors[quick]
                least = min(errors[n] for n in several)
                found[f"{part}: error, ours / best peer"] = errors[OURS] / least
    peaks = {row["system"]: row["peak_bytes"] for row in rows if row["case"] == f"{part}: compress, whole command"}
    if part.startswith("7B") and OURS in peaks:
        found[f"{part}: compress, peak memory / 3 GiB"] = peaks[OURS] / MEMORY
        if theirs := [peak for system, peak in peaks.items() if system != OURS]:
            found[f"{part}: compress, peak memory, ours / leaner peer"] = peaks[OURS] / min(theirs)
    return found
