"""NNX modules as they are in a Learner: flags, streams, state, twins, odd inputs and outputs, without a wrapper."""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_models import CLOSE, drawn

import share_jax
from share_jax.errors import InputError, TargetError
from share_jax.ops.remat_policy import Remat

X = np.asarray(drawn(4, 5))
LABELS = np.arange(4) % 2
IDS = np.array([0, 1, 1, 0])


class Mode(enum.Enum):
    LEARN = 1
    PREDICT = 2


class Own(nnx.Module):
    """Two layers; what is between them differs."""

    def __init__(self, rngs, train=False):
        self.d, self.o = nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.train = train
        self.noise = nnx.Dropout(0.5, deterministic=False, rngs=rngs)


class Flagged(Own):
    def __call__(self, x, train, *, mode=Mode.PREDICT, mask=None):
        h = self.d(x) * mode.value
        h = self.noise(h, deterministic=not train)
        return self.o(h if mask is None else h * mask)


class Fixed(Own):
    def __call__(self, x):
        return self.o(self.noise(self.d(x), deterministic=not self.train))


class Graph(NamedTuple):
    nodes: Any
    senders: Any
    receivers: Any


class Messages(Own):
    def __call__(self, graph):
        h = jax.nn.gelu(self.d(graph.nodes))
        return {"hidden": h, "logits": self.o(h + jnp.zeros_like(h).at[graph.receivers].add(h[graph.senders]))}


class Weighted(Own):
    """A table that all examples share, as long as the batch."""

    def __call__(self, x, table, scale):
        return self.o(self.d(x) + table.mean(0, keepdims=True)), scale


class Normed(Own):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=False, momentum=0.5, rngs=rngs)
        self.count = nnx.Cache(jnp.zeros((4, 1)))

    def __call__(self, x):
        self.count[...] = self.count[...] + 1
        return self.o(self.norm(self.d(x)) + 0 * self.count[...])


def learner_of(model, *args, options=None, kind=share_jax.Learner, method=None, **kwargs):
    method = method or share_jax.SharedA(rank=2)
    adapted = share_jax.adapt(model, *args, targets="d/kernel", heads="o/.*", method=method, **kwargs)
    base = adapted.variables(model)
    learner = kind(adapted, base, optax.adam(1e-2), **(options or {}))
    return learner, learner.start(adapted.init(jax.random.key(1), base["params"], 2))


def learnt(learner, bank, inputs):
    """Two tasks; the first one's outputs keep their bits, and a batch of both is that of each."""
    for name, labels in (("one", LABELS), ("two", 1 - LABELS)):
        bank = learner.learn(bank, name, [{"inputs": inputs, "labels": labels}] * 2)
        if name == "one":
            first = np.asarray(learner.predict(bank, "one", inputs))
    np.testing.assert_array_equal(learner.predict(bank, "one", inputs), first)
    return bank, [first, np.asarray(learner.predict(bank, "two", inputs))]


def check_mixed(learner, bank, single, inputs):
    want = [single[task][row] for row, task in enumerate(IDS)]
    np.testing.assert_allclose(learner.predict(bank, IDS, inputs), want, **CLOSE)


def test_flags_of_the_example_call_are_kept_and_each_side_may_have_its_own():
    model = Flagged(nnx.Rngs(0))
    options = {"train_kwargs": {"train": True, "mode": Mode.LEARN}, "remat": Remat()}
    learner, empty = learner_of(model, X, False, mask=None, options=options)
    assert dict(learner.model.flags) == {"train": False, "mask": None}
    bank, single = learnt(learner, empty, X)
    check_mixed(learner, bank, single, X)
    variables = {**learner.base, "shared": bank.shared, "tasks": bank.tasks}
    params = learner.model.effective_params(variables, 0)
    want = learner.model.model.apply({**learner.base, "params": params}, X, False)
    np.testing.assert_allclose(single[0], want, **CLOSE)
    key = jax.random.key(3)
    dropped = learner.model.apply(variables, X, True, task_id=0, rngs=key)
    np.testing.assert_array_equal(learner.model.apply(variables, X, train=True, task_id=0, rngs=key), dropped)
    assert not np.allclose(dropped, single[0])
    masked = learner.predict(bank, "one", {"x": X, "mask": np.zeros((4, 8), np.float32)})
    np.testing.assert_allclose(masked, np.tile(params["o"]["bias"], (4, 1)), **CLOSE)


def test_a_flag_that_the_example_lacks_is_asked_for_in_one_line():
    learner, empty = learner_of(Flagged(nnx.Rngs(0)), X, False)
    with pytest.raises(TargetError, match=r"missing 1 required positional argument: 'train'") as told:
        learner_of(Flagged(nnx.Rngs(0)), X)
    assert "\n" not in str(told.value)
    options = {"train_kwargs": {"trains": True}}
    learner, empty = learner_of(Flagged(nnx.Rngs(0)), X, False, options=options)
    with pytest.raises(InputError, match="trains") as told:
        learner.learn(empty, "one", [{"inputs": X, "labels": LABELS}])
    assert "\n" not in str(told.value)


def test_twins_train_and_predict_one_tree(tmp_path):
    plain, training = Fixed(nnx.Rngs(0)), Fixed(nnx.Rngs(0), train=True)
    adapted = share_jax.adapt(plain, X, targets="d/kernel", heads="o/.*")
    base = adapted.variables(plain)
    learner = share_jax.Learner(adapted.with_model(training), base, optax.adam(1e-2), twin=adapted)
    bank, single = learnt(learner, learner.start(adapted.init(jax.random.key(1), base["params"], 2)), X)
    check_mixed(learner, bank, single, X)
    share_jax.save_bank(tmp_path / "bank", learner, bank)
    again = share_jax.load_bank(
        tmp_path / "bank", learner, learner.start(adapted.init(jax.random.key(1), base["params"], 2))
    )
    np.testing.assert_array_equal(learner.predict(again, "two", X), single[1])
    undropped = share_jax.Learner(adapted, base, optax.adam(1e-2))
    other, _ = learnt(undropped, undropped.start(adapted.init(jax.random.key(1), base["params"], 2)), X)
    leaves = [jax.tree.leaves(each.tasks)[0] for each in (bank, other)]
    assert not np.allclose(leaves[0], leaves[1])
    with pytest.raises(InputError, match="differs at bias"):
        adapted.with_model(nnx.Linear(5, 8, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="twin: got int"):
        adapted.with_model(3)


def test_graphs_have_no_batch_axis_and_output_picks_the_logits():
    def graph(edges):
        drawn_edges = np.random.default_rng(edges).integers(0, 4, (2, edges))
        return Graph(X, drawn_edges[0], drawn_edges[1])

    options = {"unbatched": ("0",), "output": "logits"}
    learner, empty = learner_of(Messages(nnx.Rngs(0)), graph(4), options=options)
    bank, single = learnt(learner, empty, graph(4))
    assert single[0].shape == (4, 2)
    with pytest.raises(InputError, match="expected one for the batch"):
        learner.predict(bank, ["one"] * 4, graph(4))
    edges = {"unbatched": ("0/senders", "0/receivers"), "output": "hidden"}
    hidden, empty = learner_of(Messages(nnx.Rngs(0)), graph(4), options=edges)
    with pytest.raises(InputError, match="classes"):
        hidden.learn(empty, "one", [{"inputs": graph(4), "labels": LABELS + 9}])


def test_an_input_of_all_examples_may_be_as_long_as_the_batch():
    table, scale = np.asarray(drawn(4, 8, seed=3)), np.ones((4, 1), np.float32)
    options = {"unbatched": ("table",), "output": 0}
    learner, empty = learner_of(Weighted(nnx.Rngs(0)), X, table, scale, options=options)
    inputs = share_jax.Inputs(X, table=table, scale=scale)
    bank, single = learnt(learner, empty, inputs)
    check_mixed(learner, bank, single, inputs)
    by_place, _ = learner_of(Weighted(nnx.Rngs(0)), X, table, scale, options={"unbatched": ("1",), "output": 0})
    check_mixed(by_place, bank, single, (X, table, scale))


def test_state_that_the_module_writes_passes_through_and_the_base_keeps_its_bits():
    options = {"train_kwargs": {"mutable": True}, "predict_kwargs": {"mutable": True}}
    learner, bank = learner_of(Normed(nnx.Rngs(0)), X, options=options)
    stats = {name: learner.base["state"][name] for name in ("norm", "count")}
    before = jax.tree.map(np.array, stats)
    bank = learner.learn(bank, "one", [{"inputs": X, "labels": LABELS}] * 2)
    jax.tree.map(np.testing.assert_array_equal, stats, before)
    out, state = learner.predict(bank, "one", X)
    again, after = learner.predict(bank, ["one"] * 4, X, state=state)
    np.testing.assert_allclose(again, out, **CLOSE)
    assert [float(tree["state"]["count"][2, 0]) for tree in (state, after)] == [1, 2]


def test_flags_hold_in_a_share_learner_and_for_a_function():
    method = share_jax.Share(4, 1)
    options = {"train_kwargs": {"train": True}}
    model = Flagged(nnx.Rngs(0))
    learner, empty = learner_of(model, X, False, options=options, kind=share_jax.ShareLearner, method=method)
    bank = learner.learn(empty, "one", [{"inputs": X, "labels": LABELS}] * 2)
    assert learner.predict(bank, "one", X).shape == (4, 2)

    def function(params, x, negative):
        return (-1 if negative else 1) * x @ params["w"]

    params = {"w": drawn(5, 2)}
    adapted = share_jax.adapt_function(function, params, X, True, targets="w")
    variables = {"params": params, **adapted.init(jax.random.key(0), params, 1)}
    np.testing.assert_allclose(adapted.apply(variables, X, task_id=0), -X @ params["w"], **CLOSE)
    twin = adapted.with_model(lambda params, x, negative: 2 * function(params, x, negative))
    np.testing.assert_allclose(twin.apply(variables, X, task_id=0), -2 * X @ params["w"], **CLOSE)
