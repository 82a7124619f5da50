"""What a stream of tasks is: plain frozen data, so that any arrays or tfds source can be one.

One data set whose classes are split into tasks, from arrays of one's own:

    stream = stream_from_arrays(
        "my-stream",
        train=({"images": train_images}, train_labels),
        test=({"images": test_images}, test_labels),
        groups=[[0, 1], [2, 3]],
        class_names=["cat", "dog", "car", "bus"],
    )

From TFDS, or any other records with random access: `experiments.streams.records`. Tasks that are already apart are put
together by hand: `Stream(name, protocol, (Task(...), Task(...)))`.
The names of the inputs are the names of the model's arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.streams.checks import as_labels, check_kind, check_labels, check_scored, repeated
from share_jax.errors import InputError, message
from share_jax.models.tokenizer import Encode

Texts = tuple[str, ...] | tuple[tuple[str, str], ...]
"""Texts, or pairs of texts."""

PROTOCOLS = ("task-incremental", "domain-incremental", "class-incremental")
"""Task id given; one head and no id, every task with the same classes; one growing head and no id."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one task: `inputs` by name and `labels`, with one leading axis for the examples.

    Attributes:
        inputs: arrays (N, ...), one for each argument of the model.
        labels: int32 (N,), in [0, classes of the task); float32 (N,), finite, where the task asks for a number; int32
            (N, K), the tokens to be written, -1 for none, where it is one of tokens.
        options: rows of each question, the first with the right answer and the others with the other allowed ones; of
            tokens alone.
        nbytes: (N,) length in bytes of what is learnt of each row; of tokens alone.

    Raises:
        InputError: no inputs, lengths that differ, labels that are neither whole numbers of at least 0 nor float32, or
            rows that are no whole questions.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    options: int = 1
    nbytes: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks lengths and types, and takes whole labels to int32."""
        object.__setattr__(self, "labels", as_labels(self.labels, "labels"))
        if not self.inputs:
            fix = 'pass {"images": array} or the like'
            raise InputError(message("inputs of a split", got="none", expected="at least one array", fix=fix))
        size = len(self.labels)
        for name, array in self.inputs.items():
            shape = getattr(array, "shape", None)
            if not shape or shape[0] != size:
                fix = "give every example one label"
                got = f"shape {shape}" if shape is not None else type(array).__name__
                expected = f"an array with leading axis {size}, as the labels"
                raise InputError(message(f"input {name!r}", got=got, expected=expected, fix=fix))
        object.__setattr__(self, "inputs", dict(self.inputs))
        if self.options < 1 or size % self.options:
            fix = "give every question all of its answers"
            raise InputError(message("rows", got=size, expected=f"a multiple of {self.options} answers", fix=fix))
        if self.nbytes is not None and len(self.nbytes) != size:
            fix = "give every text its length"
            raise InputError(message("bytes of texts", got=len(self.nbytes), expected=size, fix=fix))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)


@dataclass(frozen=True)
class Sample:
    """A question whose answer is shown as text once all tasks are learnt.

    Attributes:
        prompt: the question.
        wanted: the answer.
        tokens: ids of the prompt.
        ends: ids that end an answer.
        decode: ids to text.
    """

    prompt: str
    wanted: str
    tokens: tuple[int, ...]
    ends: tuple[int, ...]
    decode: Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Checked:
    """Questions of a test set whose answers are run once all tasks are learnt.

    Attributes:
        prompts: token ids of each, the test set's first ones.
        wanted: the right answers.
        checks: of each, whether what was written does what was asked.
        ends: ids that end an answer.
        decode: ids to text.
    """

    prompts: tuple[tuple[int, ...], ...]
    wanted: tuple[str, ...]
    checks: tuple[Callable[[str], bool], ...]
    ends: tuple[int, ...]
    decode: Callable[[Sequence[int]], str]


@dataclass(frozen=True, eq=False)
class Task:
    """A task: its classes by name, or none where it asks for a number, and examples to learn from and to be tested on.

    Attributes:
        name: of the task.
        classes: names of the classes, in the order of their labels; () for regression.
        train: examples to learn from.
        test: examples to be tested on.
        kind: "classification", "regression" or "tokens".
        metric: how it is scored, a name of `experiments.task_metrics`; by default accuracy, Pearson's correlation, or
            the share of completions that are right as a whole.
        further: other test sets by name, answered once, when all tasks are learnt.
        few_shot: the test set behind a few training examples, for the model without any training; of tokens alone.
        sample: a question of the test set whose answer is shown as text; of tokens alone.
        checked: by the name of a test set, which of its answers are run; of tokens alone.
        test_name: of its own test set.

    Raises:
        InputError: no name, an unknown kind or a metric of the other one, no classes or a class twice, an empty split,
            a label out of range, a test without what its metric needs, or splits whose inputs differ in name, shape or
            type; a single training example.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    kind: str = "classification"
    metric: str = ""
    further: Mapping[str, Split] = field(default_factory=dict)
    few_shot: Split | None = None
    sample: Sample | None = None
    checked: Mapping[str, Checked] = field(default_factory=dict)
    test_name: str = "test"

    def __post_init__(self) -> None:
        """Checks the task as a whole."""
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "metric", check_kind(self.name, self.kind, self.classes, self.metric))
        for part, split in (("train", self.train), ("test", self.test)):
            check_labels(f"{part} labels of task {self.name!r}", split.labels, len(self.classes), self.kind)
        if len(self.train) == 1:
            what, fix = f"train examples of task {self.name!r}", "one example shows one class; give the task more"
            raise InputError(message(what, got="one", expected="at least two", fix=fix))
        check_scored(self.name, self.metric, [self.test, *self.further.values()])
        train, test = (_shapes(split) for split in (self.train, self.test))
        if train != test:
            what, fix = f"test inputs of task {self.name!r}", "prepare both splits in one way"
            raise InputError(message(what, got=test, expected=f"those of train, {train}", fix=fix))

    @property
    def outputs(self) -> int:
        """Outputs of its head: one for each class, or the number."""
        return max(1, len(self.classes))


def _shapes(split: Split) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape of one example and type, by input."""
    return {name: (array.shape[1:], str(array.dtype)) for name, array in split.inputs.items()}


@dataclass(frozen=True)
class Stream:
    """Tasks in the order in which they are learnt, and the protocol under which they are tested.

    In a class-incremental stream labels stay local to their task: class c of task t is output c plus the number of
    classes of all tasks before t.

    Raises:
        InputError: no tasks, a task name twice, tasks whose inputs differ in name, shape or type, an unknown protocol,
            or classes that contradict it.
    """

    name: str
    protocol: str
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        """Checks the stream as a whole."""
        object.__setattr__(self, "tasks", tuple(self.tasks))
        what = f"stream {self.name!r}"
        if self.protocol not in PROTOCOLS:
            expected = ", ".join(PROTOCOLS)
            raise InputError(message(f"protocol of {what}", got=self.protocol, expected=expected, fix="choose one"))
        if not self.tasks:
            raise InputError(message(f"tasks of {what}", got="none", expected="at least one", fix="add a task"))
        if twice := repeated([task.name for task in self.tasks]):
            raise InputError(
                message(f"task names of {what}", got=f"{twice!r} twice", expected="unique names", fix="rename one")
            )
        first = _shapes(self.tasks[0].train)
        for task in self.tasks:
            if _shapes(task.train) != first:
                got, fix = f"{_shapes(task.train)} in task {task.name!r}", "prepare all tasks in one way"
                raise InputError(message(f"inputs of {what}", got=got, expected=first, fix=fix))
        if self.protocol == "domain-incremental":
            for task in self.tasks:
                if task.classes != (first := self.tasks[0].classes):
                    fix = "use the task-incremental protocol"
                    got = f"{task.classes} in task {task.name!r}"
                    raise InputError(message(f"classes of {what}", got=got, expected=first, fix=fix))
        if len({task.kind == "tokens" for task in self.tasks}) > 1:
            got, fix = "tasks of tokens beside others", "make two streams of them"
            raise InputError(message(f"tasks of {what}", got=got, expected="all of tokens, or none", fix=fix))
        other = [task.kind for task in self.tasks if task.kind != "classification"]
        if self.protocol != "task-incremental" and other:
            got, fix = f"a {other[0]} task under {self.protocol}", "use the task-incremental protocol"
            raise InputError(message(f"tasks of {what}", got=got, expected="classes", fix=fix))
        if self.protocol == "class-incremental" and (
            twice := repeated([name for task in self.tasks for name in task.classes])
        ):
            fix = "rename it or use the task-incremental protocol"
            got, expected = f"{twice!r} in two tasks", "each class in one task"
            raise InputError(message(f"classes of {what}", got=got, expected=expected, fix=fix))


@dataclass(frozen=True, eq=False)
class TextTask:
    """A task whose inputs are still texts, or pairs of texts; `tokenize` makes it a `Task`. Fields as there.

    Raises:
        InputError: as `Task`, and for texts and labels that differ in number.
    """

    name: str
    classes: tuple[str, ...]
    train_texts: Texts
    train_labels: np.ndarray
    test_texts: Texts
    test_labels: np.ndarray
    kind: str = "classification"
    metric: str = ""

    def __post_init__(self) -> None:
        """Checks the task as a whole."""
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "metric", check_kind(self.name, self.kind, self.classes, self.metric))
        for part in ("train", "test"):
            texts = tuple(getattr(self, f"{part}_texts"))
            what = f"{part} labels of task {self.name!r}"
            labels = as_labels(getattr(self, f"{part}_labels"), what)
            if len(labels) != len(texts):
                fix = "give every text one label"
                raise InputError(message(what, got=len(labels), expected=f"{len(texts)}, as the texts", fix=fix))
            check_labels(what, labels, len(self.classes), self.kind)
            object.__setattr__(self, f"{part}_texts", texts)
            object.__setattr__(self, f"{part}_labels", labels)


def tokenize(text_tasks: Sequence[TextTask], encode: Encode, max_length: int) -> tuple[Task, ...]:
    """Text tasks with inputs `input_ids` and `attention_mask`, int32 (N, max_length).

    Args:
        text_tasks: what to encode.
        encode: texts -> (input_ids, attention_mask) of any one length up to `max_length`; shorter rows are padded
            on the right with 0 in both.
        max_length: L, the fixed length of all tasks.

    Raises:
        InputError: `encode` returns more than `max_length` tokens, or arrays that do not fit the texts.
    """

    def split(texts: Texts, labels: np.ndarray) -> Split:
        ids, mask = (np.asarray(array) for array in encode(texts))
        if ids.ndim != 2 or ids.shape != mask.shape or len(ids) != len(texts) or ids.shape[1] > max_length:
            got, expected = f"shapes {ids.shape} and {mask.shape}", f"twice ({len(texts)}, up to {max_length})"
            fix = f"make the encoder with max_length={max_length}"
            raise InputError(message("encoded texts", got=got, expected=expected, fix=fix))
        pad = ((0, 0), (0, max_length - ids.shape[1]))
        arrays = {"input_ids": np.pad(ids, pad), "attention_mask": np.pad(mask, pad)}
        return Split({name: array.astype(np.int32) for name, array in arrays.items()}, labels)

    return tuple(
        Task(
            task.name,
            task.classes,
            split(task.train_texts, task.train_labels),
            split(task.test_texts, task.test_labels),
            task.kind,
            task.metric,
        )
        for task in text_tasks
    )


def stream_from_arrays(
    name: str,
    *,
    train: tuple[Mapping[str, np.ndarray], np.ndarray],
    test: tuple[Mapping[str, np.ndarray], np.ndarray],
    groups: Sequence[Sequence[int]],
    class_names: Sequence[str] | None = None,
    protocol: str = "task-incremental",
) -> Stream:
    """Splits one labelled data set into tasks by groups of its classes, in the order of the data.

    Args:
        name: of the stream.
        train: (inputs by name, labels) to learn from; labels are those of the whole data set.
        test: the same to be tested on.
        groups: for each task, the data set's labels that are its classes 0, 1, ...
        class_names: name of each label; by default the label itself.
        protocol: one of `PROTOCOLS`.

    Raises:
        InputError: a group without examples, a label in a group twice or without a name; and as `Stream`.
    """
    sides = [Split(*side) for side in (train, test)]

    def label_name(label: int) -> str:
        if class_names is None:
            return str(label)
        if not 0 <= label < len(class_names):
            expected = f"0 to {len(class_names) - 1}"
            raise InputError(message("label in a group", got=label, expected=expected, fix="name every label"))
        return class_names[label]

    def part(side: Split, group: Sequence[int]) -> Split:
        chosen = np.flatnonzero(np.isin(side.labels, list(group)))
        local = np.argmax(side.labels[chosen, None] == np.asarray(group, np.int32)[None, :], axis=1)
        return Split({key: array[chosen] for key, array in side.inputs.items()}, local)

    tasks = []
    for group in groups:
        whole = [int(label) for label in group]
        names = tuple(label_name(label) for label in whole)
        tasks.append(Task("+".join(names), names, part(sides[0], whole), part(sides[1], whole)))
    return Stream(name, protocol, tuple(tasks))
