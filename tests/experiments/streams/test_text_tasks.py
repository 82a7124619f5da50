"""What a task of texts must have."""

from typing import Any

import pytest

from experiments.streams.text_tasks import CompletionTask
from share_jax.errors import InputError
from share_jax.text.examples import Chat, Example, Message

YES, NO = Example("Is it?", " yes"), Example("Is it not?", " no")
GOOD: dict[str, Any] = {"name": "own", "train": [YES], "test": {"test": [NO]}, "score": "exact"}


def test_a_task_is_plain_and_frozen() -> None:
    task = CompletionTask(**GOOD, checks={"test": [str.isupper]})
    assert task.train == (YES,)
    assert task.test == {"test": (NO,)}
    assert task.checks["test"][0]("A")
    assert CompletionTask(**{**GOOD, "score": "option"}, options=[" yes", " no"]).options == (" yes", " no")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "no name"),
        ({"train": []}, "no examples in train"),
        ({"test": {}}, "no test"),
        ({"test": {"far": []}}, "no examples in test 'far'"),
        ({"score": "bleu"}, "got bleu, expected exact, option, bits_per_byte"),
        ({"score": "option"}, "got None for the score 'option'"),
        ({"options": ["a", "b"]}, "for the score 'exact'"),
        ({"score": "option", "options": [" yes"]}, "two or more, each once"),
        ({"score": "option", "options": [" yes", " yes", " no"]}, "two or more, each once"),
        ({"score": "option", "options": [" yes", " maybe"]}, "got ' no'"),
        ({"score": "option", "options": [" yes", " no"], "train": [Chat((Message("assistant", "a"),))]}, "a chat"),
        ({"checks": {"test": []}}, "got 0, expected 1"),
        ({"checks": {"other": [str.isupper]}}, "got 1, expected 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        CompletionTask(**{**GOOD, **changes})
    assert said in str(caught.value)
