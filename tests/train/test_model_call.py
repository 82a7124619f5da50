"""Models as they are in a Learner: flags, random streams, collections, odd inputs and outputs, without a wrapper."""

import enum
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import share_jax
from share_jax.errors import InputError
from share_jax.ops.remat_policy import Remat

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5)).astype(np.float32)
LABELS = np.arange(6) % 2


class Mode(enum.Enum):
    """A flag that is neither a number nor a text."""

    LEARN = 1
    PREDICT = 2


class Dropped(nn.Module):
    """Takes `train`, and draws from a stream of a name of its own."""

    stream: str = "dropout"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        h = nn.Dense(8, name="d")(x)
        h = nn.Dropout(0.5, rng_collection=self.stream, deterministic=not train)(h)
        return nn.Dense(2, name="o")(h)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, *, mask: Any = None, deterministic: bool) -> jax.Array:
        h = nn.Dropout(0.5, deterministic=deterministic)(nn.Dense(8, name="d")(x))
        return nn.Dense(2, name="o")(h if mask is None else h * mask)


class Moded(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, mode: Mode, decode: bool = True) -> jax.Array:
        if decode or not isinstance(mode, Mode):
            raise AssertionError
        return nn.Dense(2, name="o")(nn.gelu(nn.Dense(8, name="d")(x)) * mode.value)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        h = nn.BatchNorm(use_running_average=not is_training)(nn.Dense(8, name="d")(x))
        return nn.Dense(2, name="o")(h)


class Fixed(nn.Module):
    """A flag as an attribute: one twin trains, one predicts."""

    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.Dropout(0.5, deterministic=not self.train)(nn.Dense(8, name="d")(x))
        return nn.Dense(2, name="o")(h)


def learner_of(model: nn.Module, *args: Any, options: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    rngs = {name: jax.random.key(7) for name in ("params", "dropout", "noise")}
    base = dict(model.init(rngs, *args, **kwargs))
    adapted = share_jax.adapt(model, base, *args, targets="d/kernel", heads="o/.*", **kwargs)
    learner = share_jax.Learner(adapted, base, optax.adam(1e-2), **(options or {}))
    return learner, learner.start(adapted.init(jax.random.key(1), base["params"], 2))


def two_tasks(learner: Any, bank: Any, inputs: Any, asked: Any = None, labels: Any = LABELS) -> Any:
    """Learns two tasks; the first one's outputs keep their bits."""
    asked = inputs if asked is None else asked
    bank = learner.learn(bank, "one", [{"inputs": inputs, "labels": labels}] * 3)
    before = jax.tree.map(np.asarray, learner.predict(bank, "one", asked))
    bank = learner.learn(bank, "two", [{"inputs": inputs, "labels": 1 - labels}] * 3)
    jax.tree.map(np.testing.assert_array_equal, learner.predict(bank, "one", asked), before)
    first, second = (jax.tree.leaves(learner.predict(bank, name, asked))[0] for name in ("one", "two"))
    assert not np.allclose(first, second)
    return bank


def mixed_equals_single(learner: Any, bank: Any, inputs: Any, rows: int = 6) -> None:
    single = [np.asarray(learner.predict(bank, name, inputs)) for name in ("one", "two")]
    ids = np.arange(rows) % 2
    want = np.stack([single[task][row] for row, task in enumerate(ids)])
    np.testing.assert_allclose(learner.predict(bank, ids, inputs), want, rtol=1e-5, atol=1e-6)


def test_flags_of_the_example_call_are_kept_and_each_side_may_have_its_own() -> None:
    learner, bank = learner_of(Dropped(), X, train=False, options={"train_kwargs": {"train": True}})
    bank = two_tasks(learner, bank, X)
    mixed_equals_single(learner, bank, X)
    still, start = learner_of(Dropped(), X, train=False)
    other = still.learn(start, "one", [{"inputs": X, "labels": LABELS}] * 3)
    dropped = jax.tree.leaves(learner.model.slot(bank.tasks, 0).leaves)[0]
    assert not np.allclose(dropped, jax.tree.leaves(still.model.slot(other.tasks, 0).leaves)[0])


def test_a_flag_by_place_is_kept_by_its_name_and_a_call_may_give_another() -> None:
    model, base = Dropped(), Dropped().init(jax.random.key(0), X, False)
    adapted = share_jax.adapt(model, base, X, False, targets="d/kernel")
    assert dict(adapted.flags) == {"train": False}
    variables = {**base, **adapted.init(jax.random.key(1), base["params"], 1)}
    want = model.apply(base, X, False)
    np.testing.assert_array_equal(adapted.apply(variables, X, task_id=0), want)
    np.testing.assert_array_equal(adapted.apply(variables, X, False, task_id=0), want)
    rngs = {"dropout": jax.random.key(2)}
    dropped = model.apply(base, X, True, rngs=rngs)
    np.testing.assert_array_equal(adapted.apply(variables, X, True, task_id=0, rngs=rngs), dropped)
    np.testing.assert_array_equal(adapted.apply(variables, X, train=True, task_id=0, rngs=rngs), dropped)


def test_enums_and_keyword_only_flags_and_none_are_flags_too() -> None:
    learner, bank = learner_of(Moded(), X, Mode.PREDICT, decode=False, options={"train_kwargs": {"mode": Mode.LEARN}})
    mixed_equals_single(learner, two_tasks(learner, bank, X), X)
    options = {"train_kwargs": {"deterministic": False}}
    learner, bank = learner_of(Deterministic(), X, mask=None, deterministic=True, options=options)
    assert dict(learner.model.flags) == {"mask": None, "deterministic": True}
    mixed_equals_single(learner, two_tasks(learner, bank, {"x": X, "mask": np.ones((6, 8), np.float32)}), X)


def test_streams_of_other_names_are_drawn_from_the_step_key() -> None:
    options = {"train_kwargs": {"train": True}, "rngs": ("noise",)}
    learner, bank = learner_of(Dropped("noise"), X, train=False, options=options)
    two_tasks(learner, bank, X)
    bare, bank = learner_of(Dropped("noise"), X, train=False, options={"train_kwargs": {"train": True}})
    with pytest.raises(InputError, match=r"noise.*name the streams that the model draws from in `rngs`"):
        bare.learn(bank, "one", [{"inputs": X, "labels": LABELS}])


def test_collections_that_the_model_writes_pass_through_and_the_base_keeps_its_bits() -> None:
    options = {
        "train_kwargs": {"is_training": True, "mutable": ["batch_stats"]},
        "predict_kwargs": {"mutable": ["batch_stats"], "is_training": True},
    }
    learner, bank = learner_of(Normed(), X, is_training=False, options=options)
    stats = jax.tree.map(np.asarray, learner.base["batch_stats"])
    bank = two_tasks(learner, bank, X)
    jax.tree.map(np.testing.assert_array_equal, learner.base["batch_stats"], stats)
    out, state = learner.predict(bank, "one", X)
    _, after = learner.predict(bank, "one", X, state=state)
    mean = [tree["batch_stats"]["BatchNorm_0"]["mean"] for tree in (state, after)]
    assert out.shape == (6, 2)
    np.testing.assert_allclose(mean[1], mean[0] * 1.99, rtol=1e-4, atol=1e-6)  # 0.01, then 0.0199 of the mean
    bare, bank = learner_of(Normed(), X, is_training=False, options={"train_kwargs": {"is_training": True}})
    with pytest.raises(InputError, match="name the collections that the model changes"):
        bare.learn(bank, "one", [{"inputs": X, "labels": LABELS}])


def test_twins_train_and_predict_one_tree() -> None:
    base = Fixed(False).init(jax.random.key(0), X)
    adapted = share_jax.adapt(Fixed(False), base, X, targets="d/kernel", heads="o/.*")
    learner = share_jax.Learner(adapted.with_model(Fixed(True)), base, optax.adam(1e-2), twin=adapted)
    mixed_equals_single(
        learner, two_tasks(learner, learner.start(adapted.init(jax.random.key(1), base["params"], 2)), X), X
    )
    other = share_jax.adapt(Fixed(False), base, X, targets="d/kernel")
    with pytest.raises(InputError, match="other targets, heads or method"):
        share_jax.Learner(adapted, base, optax.adam(1e-2), twin=other)


class Wrapped(flax.struct.PyTreeNode):
    """Logits in a dataclass, as libraries return them."""

    logits: Any
    hidden: Any


class Named(NamedTuple):
    hidden: Any
    logits: Any


MAKE = {"dict": dict, "dataclass": Wrapped, "named": Named, "tuple": lambda hidden, logits: (hidden, logits)}


class Returning(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        hidden = nn.gelu(nn.Dense(8, name="d")(x))
        return MAKE[self.kind](hidden=hidden, logits=nn.Dense(2, name="o")(hidden))


@pytest.mark.parametrize(
    ("kind", "output"), [("dict", "logits"), ("dataclass", "logits"), ("named", 1), ("tuple", lambda out: out[1])]
)
def test_output_picks_the_logits(kind: str, output: Any) -> None:
    learner, bank = learner_of(Returning(kind), X, options={"output": output})
    bank = learner.learn(bank, "one", [{"inputs": X, "labels": LABELS}])
    assert learner.predict(bank, "one", X).shape == (6, 2)
    if kind == "dataclass":
        mixed_equals_single(learner, learner.learn(bank, "two", [{"inputs": X, "labels": LABELS}]), X)


def test_output_that_is_not_there_or_not_named_is_one_line() -> None:
    batch = {"inputs": X, "labels": LABELS}
    for kind, options, line in (
        ("dict", {}, r"got a dict of \['hidden', 'logits'\], expected an array of logits.*output="),
        ("dict", {"output": "scores"}, "expected one with a part 'scores'"),
        ("dataclass", {"output": "scores"}, "expected one with a part 'scores'"),
        ("tuple", {"output": 2}, "got a tuple of 2, expected one with a part 2"),
    ):
        learner, bank = learner_of(Returning(kind), X, options=options)
        with pytest.raises(InputError, match=line) as found:
            learner.learn(bank, "one", [batch])
        assert "\n" not in str(found.value)


class Two(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, scale: jax.Array, *, shift: Any = None) -> jax.Array:
        h = nn.gelu(nn.Dense(8, name="d")(x)) * scale[:, None]
        return nn.Dense(2, name="o")(h if shift is None else h + shift[:, None])


def test_inputs_by_place_and_by_name() -> None:
    scale = np.linspace(1, 2, 6).astype(np.float32)
    learner, bank = learner_of(Two(), X, scale)
    bank = two_tasks(learner, bank, (X, scale))
    mixed_equals_single(learner, bank, (X, scale))
    want = learner.predict(bank, "one", {"x": X, "scale": scale})
    np.testing.assert_array_equal(learner.predict(bank, "one", share_jax.Inputs(X, scale=scale)), want)
    shifted = learner.predict(bank, "one", share_jax.Inputs(X, scale, shift=scale))
    assert not np.allclose(shifted, want)


class Graph(NamedTuple):
    """Nodes and edges, of unlike lengths."""

    nodes: Any
    senders: Any
    receivers: Any


class Messages(nn.Module):
    @nn.compact
    def __call__(self, graph: Graph) -> jax.Array:
        h = nn.gelu(nn.Dense(8, name="d")(graph.nodes))
        return nn.Dense(2, name="o")(h + jnp.zeros_like(h).at[graph.receivers].add(h[graph.senders]))


class Sampled(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        h = nn.Dense(8, name="d")(x)
        return nn.Dense(2, name="o")(h + 0.1 * jax.random.normal(key, (1, 8)))


def test_graphs_have_no_batch_axis_and_may_be_of_unlike_sizes() -> None:
    def graph(edges: int) -> Graph:
        return Graph(X, RNG.integers(0, 6, edges), RNG.integers(0, 6, edges))

    learner, bank = learner_of(Messages(), graph(9), options={"unbatched": ("0",)})
    batches = [{"inputs": graph(edges), "labels": LABELS} for edges in (9, 9, 7)]
    one = learner.learn(bank, "one", batches)
    two_tasks(learner, bank, graph(9))
    with pytest.raises(InputError, match="expected one for the batch"):
        learner.predict(one, ["one"] * 6, graph(9))
    plain, bank = learner_of(Messages(), graph(9))
    with pytest.raises(InputError, match=r"inputs/0/senders of batch 1.*`unbatched` of the Learner"):
        plain.learn(bank, "one", [{"inputs": graph(9), "labels": LABELS}])


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)], ids=["typed", "raw"])
def test_a_key_among_the_inputs_is_shared_by_all_examples(key: jax.Array) -> None:
    learner, bank = learner_of(Sampled(), X, key, options={"unbatched": ("key",)})
    bank = two_tasks(learner, bank, {"x": X, "key": key})
    mixed_equals_single(learner, bank, {"x": X, "key": key})


def test_what_cannot_be_split_or_is_no_sequence_is_one_line() -> None:
    learner, _ = learner_of(Messages(), Graph(X, LABELS, LABELS))
    parts = (learner.model, learner.base, learner.transform)
    with pytest.raises(InputError, match=r"unbatched: got accumulate=2"):
        share_jax.Learner(*parts, unbatched=("0",), accumulate=2)
    with pytest.raises(InputError, match=r"rngs: got 'lstm'"):
        share_jax.Learner(*parts, rngs="lstm")


def test_missing_flags_and_a_models_own_assert_are_one_line() -> None:
    learner, bank = learner_of(Moded(), X, Mode.LEARN, decode=False, options={"train_kwargs": {"decode": True}})
    with pytest.raises(InputError, match="AssertionError: no reason") as found:
        learner.learn(bank, "one", [{"inputs": X, "labels": LABELS}])
    assert "\n" not in str(found.value)
    learner, bank = learner_of(Two(), X, X[:, 0])
    with pytest.raises(InputError, match=r"'scale'.*pass it with the inputs"):
        learner.learn(bank, "one", [{"inputs": X, "labels": LABELS}])


def test_flags_hold_under_remat_and_in_a_share_learner() -> None:
    base = Dropped().init(jax.random.key(0), X, train=False)
    method = share_jax.Share(num_basis=4, pseudo_rank=1)
    adapted = share_jax.adapt(Dropped(), base, X, train=False, targets="d/kernel", heads="o/.*", method=method)
    options = {"train_kwargs": {"train": True, "mutable": ["noted"]}, "remat": Remat("nothing")}
    learner = share_jax.ShareLearner(adapted, base, optax.adam(1e-2), **options)
    bank = learner.start(adapted.init(jax.random.key(1), base["params"], 2))
    bank = learner.learn(bank, "one", [{"inputs": X, "labels": LABELS}] * 2)
    np.testing.assert_array_equal(learner.predict(bank, "one", X), learner.predict(bank, "one", X))
