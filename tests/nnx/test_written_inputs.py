"""Modules among the inputs of a call, such as a cache, are written as NNX writes them; `rngs` of a model's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_models import CLOSE, drawn, with_tasks

import share_jax
from share_jax.errors import InputError

X = drawn(3, 4)
LABELS = np.array([0, 1, 0])
MIXED = np.array([1, 0, 2])


class Sums(nnx.Module):
    """A cache: what came before, one count for all, and one for each example."""

    def __init__(self, batch):
        self.sums = nnx.Cache(jnp.zeros((batch, 6)))
        self.steps, self.starts = nnx.Variable(jnp.zeros(())), nnx.Variable(-jnp.ones(batch))


class Summing(nnx.Module):
    def __init__(self, rngs):
        self.d, self.o = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x, *, caches):
        for cache in caches:
            cache.starts[...] = jnp.where(cache.starts[...] < 0, x[:, 0], cache.starts[...])
            cache.sums[...] = cache.sums[...] + self.d(x)
            cache.steps[...] = cache.steps[...] + 1
        return self.o(caches[0].sums[...] + caches[0].starts[...][:, None]) * caches[0].steps[...]


class Streams(Summing):
    """Takes its streams with each call."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x, *, rngs: nnx.Rngs | None):
        return self.o(self.drop(self.d(x), rngs=rngs))


class Key(Summing):
    """Takes a key with each call."""

    def __call__(self, x, train=False, rngs: "jax.Array | None" = None):
        h = self.d(x)
        return self.o(h * jax.random.bernoulli(rngs, 0.5, h.shape) if train else h)


@pytest.fixture(scope="module")
def summing():
    model = Summing(nnx.Rngs(0))
    spaces = {}
    for space in ("activation", "parameter"):
        options = {"targets": "d/kernel", "method": share_jax.SharedA(rank=2), "space": space}
        adapted = share_jax.adapt(model, X, caches=[Sums(3)], **options)
        spaces[space] = adapted, with_tasks(adapted, adapted.variables(model))
    return model, spaces


def state_of(cache):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(cache)))


def plain_run(model, params):
    """Output and cache of the module itself after two steps with these parameters."""
    graph, own, rest = nnx.split(model, nnx.Param, ...)
    nnx.replace_by_pure_dict(own, params)
    plain, cache = nnx.merge(graph, own, rest), Sums(3)
    return [plain(X, caches=[cache]) for _ in range(2)][1], state_of(cache)


@pytest.mark.parametrize("space", ["activation", "parameter"])
def test_a_cache_among_the_inputs_is_written_as_the_module_writes_it(summing, space):
    model, spaces = summing
    adapted, variables = spaces[space]
    cache = Sums(3)
    outs = [adapted.apply(variables, X, caches=[cache], task_id=1) for _ in range(2)]
    want, after = plain_run(model, adapted.effective_params(variables, 1))
    np.testing.assert_allclose(outs[1], want, **CLOSE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), state_of(cache), after)


def test_a_mixed_batch_writes_for_each_example_what_its_task_does(summing):
    model, spaces = summing
    adapted, variables = spaces["activation"]

    @jax.jit
    def step(x, caches, task_id):
        return adapted.apply(variables, x, caches=caches, task_id=task_id), caches

    out, own = None, [Sums(3)]
    for _ in range(2):
        out, own = step(X, own, MIXED)
    for row, task in enumerate(MIXED):
        want, after = plain_run(model, adapted.effective_params(variables, task))
        np.testing.assert_allclose(out[row], want[row], **CLOSE)
        np.testing.assert_allclose(own[0].sums[row], after["sums"][row], **CLOSE)
    assert own[0].steps[...].tolist() == 2


def test_a_learner_leaves_the_caches_of_its_batches_as_they_are(summing):
    model, spaces = summing
    adapted, _ = spaces["activation"]
    learner = share_jax.Learner(adapted, adapted.variables(model), optax.adam(1e-2), unbatched=["caches/0/steps"])
    bank = learner.start(adapted.init(jax.random.key(1), learner.base["params"], 2))
    inputs = {"x": X, "caches": [Sums(3)]}
    for name in ("one", "two"):
        bank = learner.learn(bank, name, [{"inputs": inputs, "labels": LABELS}] * 2)
        if name == "one":
            first = np.asarray(learner.predict(bank, "one", inputs))
    np.testing.assert_array_equal(learner.predict(bank, "one", inputs), first)
    assert not any(np.any(leaf) for leaf in (inputs["caches"][0].sums, inputs["caches"][0].steps))


def test_a_chosen_task_writes_into_a_cache(summing):
    model, spaces = summing
    adapted, _ = spaces["activation"]
    learner = share_jax.Learner(adapted, adapted.variables(model), optax.sgd(0.1), unbatched=["caches/0/steps"])
    bank = learner.start(adapted.init(jax.random.key(1), learner.base["params"], 1))
    bank = learner.learn(bank, "one", [{"inputs": {"x": X, "caches": [Sums(3)]}, "labels": LABELS}])
    own, cache = [Sums(3)], Sums(3)
    trees = {**adapted.variables(model), "shared": bank.shared, "tasks": bank.tasks}
    want = [adapted.apply(trees, X, caches=own, task_id=0) for _ in range(2)]
    chosen = share_jax.nnx.ChosenTask(adapted, model, bank, "one")
    for each in want:
        np.testing.assert_allclose(chosen(X, caches=[cache]), each, **CLOSE)
    np.testing.assert_array_equal(cache.sums[...], own[0].sums[...])


class Loose(nnx.Module, pytree=False):
    def __init__(self):
        self.sums = self.steps = self.starts = nnx.Variable(jnp.zeros(3))


def test_a_cache_that_is_no_pytree_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"call of Summing: got Cannot mutate .*, expected .*; pass .* pytree") as told:
        share_jax.adapt(Summing(nnx.Rngs(0)), X, caches=[Loose()], targets="d/kernel")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", [Streams, Key])
def test_rngs_that_the_model_takes_itself_are_made_of_the_steps_key(kind):
    model, flags = kind(nnx.Rngs(0)), {"train": True} if kind is Key else {}
    adapted = share_jax.adapt(model, X, rngs=None, targets="d/kernel", method=share_jax.SharedA(rank=2))
    variables = with_tasks(adapted, adapted.variables(model))
    dropped = [adapted.apply(variables, X, task_id=0, rngs=jax.random.key(seed), **flags) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(*dropped[:2])
    assert not np.allclose(dropped[0], dropped[2])
    want = [adapted.apply(variables, X, task_id=task) for task in range(3)]
    mixed = adapted.apply(variables, X, task_id=MIXED)
    np.testing.assert_allclose(mixed, [want[task][row] for row, task in enumerate(MIXED)], **CLOSE)
    assert adapted.apply(variables, X, task_id=MIXED, rngs=jax.random.key(3), **flags).shape == (3, 2)


def test_a_batch_may_say_that_there_are_no_streams():
    model = Streams(nnx.Rngs(0))
    adapted = share_jax.adapt(model, X, rngs=None, targets="d/kernel")
    learner = share_jax.Learner(adapted, adapted.variables(model), optax.sgd(0.1))
    bank = learner.start(adapted.init(jax.random.key(1), learner.base["params"], 1))
    given = share_jax.Inputs(X, rngs=None)
    bank = learner.learn(bank, "one", [{"inputs": given, "labels": LABELS}] * 2)
    np.testing.assert_allclose(learner.predict(bank, "one", given), learner.predict(bank, "one", X), **CLOSE)


def test_streams_that_a_call_gives_are_the_models_own():
    model, seen = Streams(nnx.Rngs(0)), nnx.Rngs(7)
    adapted = share_jax.adapt(model, X, rngs=nnx.Rngs(0), targets="d/kernel")
    variables = {**adapted.variables(model), **adapted.init(jax.random.key(1), adapted.variables(model)["params"], 1)}
    model.eval()
    want = model(X, rngs=nnx.Rngs(7))
    np.testing.assert_allclose(adapted.apply(variables, X, task_id=0, rngs=seen), want, **CLOSE)


def test_streams_are_drawn_from_as_the_module_draws():
    class Noisy(Summing):
        def __call__(self, x, *, z, rngs, caches):
            caches[0].steps[...] = caches[0].steps[...] + 1
            return self.o(self.d(x)) + z + jax.random.normal(rngs(), (3, 2))

    model, cache = Noisy(nnx.Rngs(0)), Sums(3)
    adapted = share_jax.adapt(model, X, z=X[:, :1], rngs=nnx.Rngs(0), caches=[cache], targets="d/kernel")
    variables = {**adapted.variables(model), **adapted.init(jax.random.key(1), adapted.variables(model)["params"], 1)}
    streams = nnx.Rngs(7), nnx.Rngs(7)
    for _ in range(2):
        want = model(X, z=X[:, :1], rngs=streams[0], caches=[Sums(3)])
        got = adapted.apply(variables, X, z=X[:, :1], rngs=streams[1], caches=[cache], task_id=0)
        np.testing.assert_allclose(got, want, **CLOSE)
    assert cache.steps[...] == streams[1].default.count[...] == 2
    adapted.apply(variables, X, z=X[:, :1], rngs=jax.random.key(0), caches=[cache], task_id=0)
    assert cache.steps[...] == 3


def test_a_function_gets_the_steps_key_by_either_name():
    def by_key(params, x, key=None):
        h = x @ params["w"]
        return h if key is None else h * jax.random.bernoulli(key, 0.5, h.shape)

    def by_rngs(params, x, *, rngs):
        return by_key(params, x, rngs)

    params = {"w": drawn(4, 2)}
    for function, flag in ((by_key, {"key": None}), (by_rngs, {"rngs": None})):
        adapted = share_jax.adapt_function(function, params, X, targets="w", **flag)
        variables = {"params": params, **adapted.init(jax.random.key(1), params, 1)}
        np.testing.assert_allclose(adapted.apply(variables, X, task_id=0), X @ params["w"], **CLOSE)
        dropped = adapted.apply(variables, X, task_id=0, rngs=jax.random.key(3))
        assert np.any(np.asarray(dropped) == 0)
