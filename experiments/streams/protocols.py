"""One stream under each of the three protocols, which are never compared with each other.

- task-incremental: the task's id is given with every example.
- domain-incremental: no id; every task has the same outputs, of which class c of any task is output c.
- class-incremental: no id; outputs grow: class c of a task is output c plus the number of classes of all tasks before.

Source: van de Ven and Tolias 2019, "Three scenarios for continual learning" (arXiv 1904.07734).
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

import numpy as np

from experiments.streams.base import Split, Stream, Task
from share_jax.errors import InputError, message

Protocol = Literal["task", "domain", "class"]

TASK, DOMAIN, CLASS = "task-incremental", "domain-incremental", "class-incremental"

NAMES: Mapping[Protocol, str] = MappingProxyType({"task": TASK, "domain": DOMAIN, "class": CLASS})
"""What each is called in streams and results."""


def under(stream: Stream, protocol: Protocol | None) -> Stream:
    """The stream under a protocol; under its own when None. Labels stay local to their task.

    Raises:
        InputError: the stream's classes contradict the protocol: domains need as many classes each, and a
            class-incremental stream has each class in one task; a task of regression has none.
    """
    if protocol is None or NAMES[protocol] == stream.protocol:
        return stream
    name, tasks = NAMES[protocol], stream.tasks
    if other := [(task.name, task.kind) for task in tasks if task.kind != "classification"]:
        what, fix = f"protocol of {stream.name!r}", "choose --protocol task"
        asks = {"regression": "a number", "tokens": "tokens"}[other[0][1]]
        expected = f"task-incremental, as task {other[0][0]!r} asks for {asks}"
        raise InputError(message(what, got=name, expected=expected, fix=fix))
    if name == DOMAIN and len({task.classes for task in tasks}) > 1:
        counts = sorted({len(task.classes) for task in tasks})
        if len(counts) > 1:
            what, fix = f"classes of the tasks of {stream.name!r}", "choose --protocol task or class"
            raise InputError(message(what, got=counts, expected="as many in every domain", fix=fix))
        outputs = tuple(f"output {number}" for number in range(counts[0]))
        tasks = tuple(replace(task, classes=outputs) for task in tasks)
    return Stream(stream.name, name, tasks)


def offsets(stream: Stream) -> tuple[int, ...]:
    """The output that class 0 of each task is: 0 for all unless the stream is class-incremental."""
    if stream.protocol != CLASS:
        return (0,) * len(stream.tasks)
    return (0, *accumulate(len(task.classes) for task in stream.tasks[:-1]))


def outputs(stream: Stream) -> tuple[int, ...]:
    """How many outputs there are once each task is learnt."""
    if stream.protocol != CLASS:
        return (max(len(task.classes) for task in stream.tasks),) * len(stream.tasks)
    return tuple(accumulate(len(task.classes) for task in stream.tasks))


def one_head(stream: Stream) -> Stream:
    """The stream as a model with one head learns it: each task with the outputs that there are by then.

    A class-incremental task has the classes of all tasks up to it, and its labels are outputs. As every task then says
    for itself what its outputs are, the result is a plain stream of tasks, and `protocol` says so.
    """
    before: tuple[str, ...] = ()
    tasks = []
    for task, offset in zip(stream.tasks, offsets(stream), strict=True):
        before = (*before, *task.classes) if stream.protocol == CLASS else task.classes
        tasks.append(Task(task.name, before, _shifted(task.train, offset), _shifted(task.test, offset)))
    return Stream(stream.name, TASK, tuple(tasks))


def _shifted(split: Split, offset: int) -> Split:
    return Split(split.inputs, split.labels + np.int32(offset))
