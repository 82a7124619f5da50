"""Examples as tokens and their batches: what is learnt of each, cut from the right side, resumed at any step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from share_jax.errors import InputError
from share_jax.models.text_tokenizer import TextTokenizer
from share_jax.text.examples import Chat, Example, Message
from share_jax.train.hidden_rows import hidden_rows
from share_jax.train.prefix_cache import PrefixCache
from share_jax.train.token_batches import TokenBatches
from share_jax.train.token_rows import TokenRows, token_arrays, token_rows

WORDS = ("<end>", *"abcdefghijklmnopqrstuvwxyz")


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    plain = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="z"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}x{% endif %}"
    return TextTokenizer(plain, (0,), 0, {}, template)


def spelt(ids: tuple[int, ...]) -> str:
    return " ".join(WORDS[each] for each in ids)


def test_the_completion_and_the_stop_are_learnt(tokenizer: TextTokenizer) -> None:
    rows = token_rows([Example("a b", "c d"), Example("", "e f")], tokenizer, 16)
    assert [spelt(own) for own in rows.ids] == ["a b c d <end>", "e f <end>"]
    assert rows.starts == (2, 1)  # of a text all but its first token, which nothing stands before
    assert rows.learnt.tolist() == [3, 2]
    assert rows.lengths.tolist() == [4, 2]
    assert rows.nbytes == (3, 1)  # of "e f" the "e" is given away


def test_an_empty_completion_is_refused_by_its_source(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match=r"completion of a\.jsonl line 2: got nothing, expected a text"):
        token_rows([Example("a", "b"), Example("a", "", "a.jsonl line 2")], tokenizer, 16)


def test_long_texts_do_not_make_short_ones_as_long(tokenizer: TextTokenizer) -> None:
    texts = [Example("a b", "c d"), Example("a", " ".join("b" * 90)), Example("e f g", "h")]
    rows = token_rows(texts, tokenizer, 128)

    def prefix(variables: Any, inputs: Any) -> Any:
        return inputs["input_ids"][..., None] * variables["scale"].reshape(1, 1, -1)

    made = hidden_rows(PrefixCache(prefix, {"scale": np.ones(2, np.float32)}, rows=2), rows)
    assert {length: len(array) for length, array in made.arrays.items()} == {64: 2, 96: 1}
    whole = token_arrays(rows, np.arange(3), 96, 96)["input_ids"]
    for length in (48, 96):
        np.testing.assert_array_equal(made.take(np.array([2, 1, 0]), length)[..., 1], whole[[2, 1, 0], :length])
    plain = prefix({"scale": np.ones(2, np.float32)}, {"input_ids": whole})
    kept, plain = (TokenBatches(rows, 2, hidden=hidden) for hidden in (made, plain))
    for a, b in zip(kept, plain, strict=True):
        np.testing.assert_array_equal(a["inputs"]["hidden"], b["inputs"]["hidden"])


def test_the_last_answer_of_a_chat_is_learnt_behind_the_templates_prompt(tokenizer: TextTokenizer) -> None:
    chat = Chat((Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")))
    rows = token_rows([chat], tokenizer, 16)
    assert spelt(rows.ids[0]) == "a b c x d <end>"
    assert rows.starts == (4,)


def test_what_is_too_long_loses_the_beginning_of_its_prompt_then_the_end_of_its_completion(
    tokenizer: TextTokenizer,
) -> None:
    many = " ".join("abcdefghijkl")
    rows = token_rows([Example(many, "x y"), Example("a", many), Example("a", "b")], tokenizer, 8)
    assert [spelt(own) for own in rows.ids] == ["h i j k l x y <end>", "a a b c d e f g", "a b <end>"]
    assert rows.cut == 2


def test_arrays_name_the_places_whose_next_token_is_learnt(tokenizer: TextTokenizer) -> None:
    rows = token_rows([Example("a b", "c d"), Example("a", "b")], tokenizer, 16)
    arrays = token_arrays(rows, np.array([0, 1]), 6, 4)
    for row, own in enumerate(rows.ids):
        wanted = arrays["targets"][row] >= 0
        places = arrays["columns"][row][wanted]
        np.testing.assert_array_equal(arrays["targets"][row][wanted], np.array(own)[places + 1])
        np.testing.assert_array_equal(arrays["input_ids"][row][: len(own) - 1], own[:-1])
        assert arrays["attention_mask"][row].sum() == len(own) - 1
        assert wanted.sum() == rows.learnt[row]


def batches(count: int = 23, epochs: int = 2) -> TokenBatches:
    rng = np.random.default_rng(0)
    ids = tuple(tuple(rng.integers(1, 20, rng.integers(3, 40)).tolist()) for _ in range(count))
    starts = tuple(int(rng.integers(1, len(own))) for own in ids)
    return TokenBatches(TokenRows(ids, starts, (1,) * count), 4, seed=3, task=1, epochs=epochs)


def test_every_example_is_seen_once_in_every_epoch() -> None:
    made = batches()
    each = list(made)
    assert len(each) == len(made) == 12
    for epoch in (each[:6], each[6:]):
        seen = [tuple(row[row >= 0]) for batch in epoch for row in batch["labels"][batch["weights"].max(axis=1) > 0]]
        wanted = [own[start:] for own, start in zip(made.rows.ids, made.rows.starts, strict=True)]
        assert sorted(seen) == sorted(wanted)
    assert [b["labels"].tobytes() for b in each[:6]] != [b["labels"].tobytes() for b in each[6:]]


def test_a_length_has_one_shape() -> None:
    shapes: dict[int, set] = {}
    for batch in batches(60):
        found = {name: array.shape for name, array in batch["inputs"].items()}
        shapes.setdefault(batch["inputs"]["input_ids"].shape[1], set()).add(tuple(sorted(found.items())))
    assert len(shapes) > 2
    assert all(len(own) == 1 for own in shapes.values())


@pytest.mark.parametrize("position", [0, 1, 7, 12])
def test_batches_go_on_from_any_position(position: int) -> None:
    whole = list(batches())
    with batches().open(position) as stream:
        rest = list(stream)
        state = stream.state()
    assert state["next_index"] == 12
    assert list(batches().open(state)) == []
    with pytest.raises(InputError, match="epochs of the batches"):
        batches(epochs=3).open(state)
    assert len(rest) == 12 - position
    for got, want in zip(rest, whole[position:], strict=True):
        np.testing.assert_array_equal(got["labels"], want["labels"])
        np.testing.assert_array_equal(got["weights"], want["weights"])


def test_a_training_goes_on_with_the_settings_that_it_began_with() -> None:
    told = replace(batches(), training={"learning_rate": 6e-3, "start_from": "last"})
    with told.open(1) as stream:
        saved = stream.state()
    assert len(list(replace(batches(), training=told.training).open(saved))) == 11
    other = replace(batches(), training={"learning_rate": 6e-3, "start_from": "zero"})
    with pytest.raises(InputError, match=r"^start_from: got zero, expected last; go on with the same"):
        other.open(saved)
    older = {name: value for name, value in saved.items() if name not in told.training}
    assert len(list(told.open(older))) == 11  # it does not say what it was


def test_a_frozen_prefix_stands_in_place_of_the_ids() -> None:
    made = batches()
    hidden = np.arange(23 * 40 * 2, dtype=np.float32).reshape(23, 40, 2)
    own = TokenBatches(made.rows, 4, 3, 1, 1, hidden).batch(0)
    assert "input_ids" not in own["inputs"]
    assert own["inputs"]["hidden"].shape[:2] == own["inputs"]["attention_mask"].shape


def test_nothing_to_learn_is_refused(tokenizer: TextTokenizer) -> None:
    for bad in ([], [Example("", "")]):
        with pytest.raises(InputError):
            token_rows(bad, tokenizer, 16)
    with pytest.raises(InputError, match="max_length"):
        token_rows([Example("a", "b")], tokenizer, 4)
