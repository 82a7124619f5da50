"""A task of a language model as plain text: what it is learnt from, what it is tested on, and how it is scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from share_jax.errors import InputError, message
from share_jax.text.examples import Chat, Example

Score = Literal["exact", "option", "bits_per_byte"]
"""The whole completion as it is written; the likeliest of the options; the cost of the completion's text."""

SCORES = get_args(Score)

Check = Callable[[str], bool]
"""Whether what a model wrote does what its question asks, however it is written."""


@dataclass(frozen=True)
class CompletionTask:
    """A task of texts that are completed.

    Attributes:
        name: of the task.
        train: what it is learnt from; never empty.
        test: what it is tested on, by the name of the test set; the first is the task's own score.
        score: how it is scored.
        options: the completions among which "option" chooses; None otherwise.
        checks: for each example of a test set one check of what was written, beside the score; empty where there are
            none.

    Raises:
        InputError: no examples, an unknown score, options that do not fit it or the examples, or too few checks.
    """

    name: str
    train: tuple[Example | Chat, ...]
    test: Mapping[str, tuple[Example | Chat, ...]]
    score: Score
    options: tuple[str, ...] | None = None
    checks: Mapping[str, tuple[Check, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the task as a whole."""
        for name in ("train", "options"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("test", "checks"):
            values = {key: tuple(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, values)
        what = f"task {self.name!r}"
        sets = {"train": self.train, **{f"test {name!r}": examples for name, examples in self.test.items()}}
        if not self.name or not self.test or (empty := [name for name, examples in sets.items() if not examples]):
            got = "no name" if not self.name else f"no examples in {empty[0]}" if self.test else "no test"
            raise InputError(message(what, got=got, expected="a name, and examples everywhere", fix="add them"))
        if self.score not in SCORES:
            raise InputError(message(f"score of {what}", got=self.score, expected=", ".join(SCORES), fix="choose one"))
        self._check_options(what, sets)
        for name, checks in self.checks.items():
            if (expected := len(self.test.get(name, ()))) != len(checks):
                fix = "pass one for each example of that test set"
                raise InputError(message(f"checks {name!r} of {what}", got=len(checks), expected=expected, fix=fix))

    def _check_options(self, what: str, sets: Mapping[str, tuple[Example | Chat, ...]]) -> None:
        if (self.options is not None) != (self.score == "option"):
            got, expected = f"{self.options} for the score {self.score!r}", 'options for "option" alone'
            raise InputError(message(f"options of {what}", got=got, expected=expected, fix="correct one of the two"))
        if self.options is None:
            return
        if len(set(self.options)) < max(2, len(self.options)):
            got, expected = self.options, "two or more, each once"
            raise InputError(message(f"options of {what}", got=got, expected=expected, fix="correct them"))
        for name, examples in sets.items():
            for example in examples:
                if not isinstance(example, Example) or example.completion not in self.options:
                    got = repr(example.completion) if isinstance(example, Example) else "a chat"
                    expected, fix = f"one of {self.options}", "add it to the options, or correct the example"
                    raise InputError(message(f"completion in {name} of {what}", got=got, expected=expected, fix=fix))
