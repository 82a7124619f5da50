"""What is frozen below the first adapted layer: where it ends, what is kept of it, and for how long."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretrained_folders import pretrained_folder

from share_jax import language
from share_jax.bank.router import Router
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError
from share_jax.language import learning
from share_jax.language.routing import with_prompts
from share_jax.language.scoring import evaluate
from share_jax.language.training import Training
from share_jax.text.examples import Example
from share_jax.train.token_rows import token_rows
from share_jax.trees import flat

EXAMPLES = [Example(f"{asked} :", " on the cat") for asked in ("the cat sat", "a dog sat", "the dog sat", "a cat sat")]
TEXTS = [Example("", f"{asked} on the cat sat") for asked in ("the cat sat", "a dog", "the dog sat on a cat", "a cat")]
SHORT = Training(epochs=2, batch_size=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of two layers."""
    folder = tmp_path_factory.mktemp("frozen")
    pretrained_folder("decoder", folder)
    return folder / "decoder"


def opened(folder: Path, model: Path, **settings: object) -> language.LanguageBank:
    chosen = language.LanguageSettings("decoder", rank=2, max_length=32)
    return language.open_language_bank(folder, model, replace(chosen, **settings))


@pytest.mark.parametrize("targets", [(".*/query/kernel",), ("embed/embedding", "layer_1/.*/kernel")])
def test_targets_say_where_the_frozen_part_ends(tmp_path: Path, model: Path, targets: tuple[str, ...]) -> None:
    new = opened(tmp_path / "bank", model, targets=targets)
    assert new.settings.first_layer == 0
    learnt = language.learn(new, "cats", EXAMPLES, SHORT, evaluation=EXAMPLES)
    own = flat(read_slot(learnt.opened.bank.tasks, 0))
    assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in own.values())
    again = evaluate(language.open_language_bank(tmp_path / "bank"), "cats", EXAMPLES)
    assert learnt.scores is not None
    assert again.nats_per_token == pytest.approx(learnt.scores.nats_per_token, abs=1e-5)


def test_targets_below_the_first_layer_are_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match=r"targets: got layer_0/.*, below layer 1, .* lower --first-layer to 0"):
        opened(tmp_path / "bank", model, targets=(".*/query/kernel",), first_layer=1)
    assert opened(tmp_path / "bank", model, targets=("layer_1/.*/kernel",), first_layer=1).settings.first_layer == 1
    assert opened(tmp_path / "bank", model, targets=("layer_1/.*/kernel",), first_layer=0).settings.first_layer == 0


@pytest.mark.parametrize("examples", [EXAMPLES, TEXTS])
def test_the_router_knows_the_same_of_kept_and_of_computed_layers(
    tmp_path: Path, model: Path, examples: list[Example]
) -> None:
    bank = opened(tmp_path / "bank", model, first_layer=1)
    rows = token_rows(examples, bank.pretrained.tokenizer, 32)
    kept, computed = (
        with_prompts(bank, "cats", examples, rows, hidden) for hidden in (learning._hidden(bank, rows), None)
    )
    a, b = kept.tasks["cats"].means, computed.tasks["cats"].means
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kept.scatter, computed.scatter, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_into_memory_lies_in_files_until_the_task_is_saved(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARE_JAX_CACHE", str(tmp_path / "cache"))
    plain = language.learn(opened(tmp_path / "plain", model, first_layer=1), "cats", EXAMPLES, SHORT).opened.bank
    monkeypatch.setattr(learning, "PREFIX_BYTES", 0)
    seen: list[int] = []
    monkeypatch.setattr(learning, "with_prompts", _looking(seen, tmp_path / "cache"))
    done = language.learn(opened(tmp_path / "bank", model, first_layer=1), "cats", EXAMPLES, SHORT).opened.bank
    assert seen[0] > 0
    assert not list((tmp_path / "cache").rglob("*.bin"))
    for a, b in zip(flat(plain.tasks).values(), flat(done.tasks).values(), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _looking(seen: list[int], cache: Path):
    def look(*args: object) -> Router:
        seen.append(len(list(cache.rglob("*.bin"))))
        return with_prompts(*args)  # pyright: ignore[reportArgumentType]

    return look


@pytest.mark.parametrize("method", ["shared_a", "share"])
def test_a_kernel_that_learns_nothing_is_saved(tmp_path: Path, model: Path, method: str) -> None:
    """Token rows of a table that no example has get no gradient; all of a layer's update may be zero."""
    new = opened(tmp_path / "bank", model, first_layer=1, method=method, num_basis=4)
    still = replace(SHORT, learning_rate=1e-30)
    language.learn(new, "cats", EXAMPLES, still)
    assert language.open_language_bank(tmp_path / "bank").bank.names == ("cats",)
