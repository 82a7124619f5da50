r"""Which task an example belongs to, when nobody says: Gaussians with one covariance over a frozen model's features.

Every class c of a task t is a Gaussian N(mu_c, S) over fixed features x, such as the frozen model's pooled vector, and
a task is the mixture of its classes, weighted by how many examples each had:

    score_t(x) = log sum_{c in t} (n_c / n_t) exp(-1/2 (x - mu_c)^T S^-1 (x - mu_c))

What is kept of a task are the counts and means of its classes; what all share is one scatter matrix around the class
means. No example is kept, and a new task changes no mean of another. A task without labels is one Gaussian.

    router = empty_router(384)
    for name, features, labels in tasks:
        router = add_task(router, name, features, labels)
    rule = routing_rule(router, bank.names)        # ids are those of the bank
    ids = route(rule, features)                    # one task per example, for `Learner.predict` or `Adapted.apply`

Statistics are NumPy arrays in float64 on the host, where they change once per task; the rule made of them is a pytree
in float32, to be used within `jit` or outside. S is shrunk towards the mean variance times the identity, so that fewer
examples than features, or features that never vary, do no harm; how far follows from S itself (`shrinkage`).

Sources: the classifier is Fisher's linear discriminant; Lee et al. 2018, "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks" (arXiv 1807.03888, eq. 1 and 2), uses it on the features of deep
networks, and class by class; Hayes and Kanan 2020, "Lifelong Machine Learning with Deep Streaming Linear Discriminant
Analysis" (arXiv 1909.01520), for streams.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import logsumexp

from share_jax.annotations import Float, Int
from share_jax.errors import InputError, TaskError, message
from share_jax.typing import Array

SMALLEST_SHRINKAGE = 1e-6
"""S is shrunk by at least this share, so that a feature which never varies cannot make it singular."""


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """What is kept of a task.

    Attributes:
        counts: (C,) int64, examples of each class; all at least 1.
        means: (C, D) float64, mean features of each class.
    """

    counts: Int[np.ndarray, " C"]
    means: Float[np.ndarray, "C D"]


@dataclass(frozen=True, eq=False)
class Router:
    """What is kept of all tasks. A record: every transition returns a new one.

    Attributes:
        scatter: (D, D) float64, sum of the outer products of x - mu_c over the examples of all tasks ever added.
        freedom: degrees of freedom of the scatter: those examples, less one for each class.
        tasks: statistics by task name, in the order in which they were added.

    Example:
        >>> router = add_task(empty_router(2), "news", np.array([[0.0, 1.0], [2.0, 1.0]]))
        >>> router = add_task(router, "mail", np.array([[5.0, 5.0], [5.0, 7.0]]))
        >>> router.names, router.freedom
        (('news', 'mail'), 2)
        >>> router.scatter
        array([[2., 0.],
               [0., 2.]])
    """

    scatter: Float[np.ndarray, "D D"]
    freedom: int = 0
    tasks: Mapping[str, TaskStatistics] = field(default_factory=dict)

    @property
    def features(self) -> int:
        """Number of features, D."""
        return len(self.scatter)

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks in the order in which they were added."""
        return tuple(self.tasks)


class Rule(NamedTuple):
    """A router ready to be used: a pytree of float32 arrays. Tasks with fewer than C classes are padded.

    Attributes:
        centre: (D,), taken from every example first.
        whitening: (D, D), after which the covariance is the identity.
        means: (T, C, D), centred and whitened.
        log_weights: (T, C), log(n_c / n_t); minus infinity for padding.

    Example:
        >>> router = add_task(empty_router(2), "news", np.array([[-5.0, 0.0], [-5.0, 1.0]]))
        >>> router = add_task(router, "mail", np.array([[5.0, 0.0], [5.0, 1.0]]))
        >>> rule = routing_rule(router)
        >>> rule.means.shape, rule.centre
        ((2, 1, 2), Array([0. , 0.5], dtype=float32))
    """

    centre: Float[Array, " D"]
    whitening: Float[Array, "D D"]
    means: Float[Array, "T C D"]
    log_weights: Float[Array, "T C"]


def empty_router(features: int) -> Router:
    """A router that knows no task.

    Args:
        features: D, how many features an example has.

    Raises:
        InputError: if there is not at least one.

    Example:
        >>> router = empty_router(384)
        >>> router.features, router.names
        (384, ())
    """
    if not isinstance(features, int | np.integer) or isinstance(features, bool) or features < 1:
        fix = "pass the length of a feature vector"
        raise InputError(message("features of a router", got=features, expected="a whole number above 0", fix=fix))
    return Router(np.zeros((int(features), int(features))))


def add_task(router: Router, name: str, features: Any, labels: Any = None) -> Router:
    """The router with one more task. No statistics of another task change but the covariance that all share.

    Args:
        router: what is known.
        name: the new task's name.
        features: (N, D) of the task's training examples.
        labels: (N,) whole numbers, each example's class; the task is one Gaussian when None.

    Raises:
        TaskError: if the name is empty or taken.
        InputError: if the features are not finite numbers of this shape, or the labels do not fit them.

    Example:
        >>> features = np.array([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]])
        >>> router = add_task(empty_router(2), "news", features, labels=[0, 0, 1])
        >>> router.tasks["news"].counts, router.tasks["news"].means
        (array([2, 1]), array([[1., 1.],
               [5., 5.]]))
    """
    if not name or name in router.tasks:
        fix = "choose another name, or remove that task first"
        raise TaskError(message("task for the router", got=repr(name), expected="a name that no task has", fix=fix))
    examples = _examples(features, router.features, f"features of task {name!r}")
    counts, means, scatter = _within(examples, _groups(labels, len(examples), name))
    return Router(
        router.scatter + scatter,
        router.freedom + len(examples) - len(counts),
        {**router.tasks, name: TaskStatistics(counts, means)},
    )


def remove_task(router: Router, name: str) -> Router:
    """The router without one task: no example is sent to it any more.

    The scores become, to the bit, those of `routing_rule(router, names)` with the remaining names; the centre moves to
    their mean, so they differ from the scores among all tasks by rounding. What the task added to the shared covariance
    stays there: it cannot be told from the rest.

    Args:
        router: what is known.
        name: the task that goes.

    Raises:
        TaskError: if there is no such task.

    Example:
        >>> router = add_task(empty_router(2), "news", np.eye(2))
        >>> router = add_task(router, "mail", -np.eye(2))
        >>> remove_task(router, "news").names
        ('mail',)
    """
    _known(router, name)
    return replace(router, tasks={other: own for other, own in router.tasks.items() if other != name})


def shrinkage(scatter: Float[np.ndarray, "D D"], freedom: int) -> float:
    """How far the covariance S = scatter / freedom goes towards (tr S / D) I: from nearly 0 to 1.

    rho = ((1 - 2/D) tr S^2 + tr(S)^2) / ((n + 1 - 2/D) (tr S^2 - tr(S)^2 / D)), n the degrees of freedom, kept within
    `SMALLEST_SHRINKAGE` and 1; 1 where S is a multiple of the identity, or nothing is known of it.
    Source: Chen et al. 2010, "Shrinkage Algorithms for MMSE Covariance Estimation" (arXiv 0907.4698), eq. 23 (OAS).

    >>> shrinkage(np.diag([3.0, 3.0]), 3)
    1.0
    """
    d = len(scatter)
    if freedom < 1:
        return 1.0
    covariance = scatter / freedom
    square, trace = float(np.sum(covariance**2)), float(np.trace(covariance))
    spread = square - trace**2 / d
    if spread <= 1e-12 * square:
        return 1.0
    share = ((1 - 2 / d) * square + trace**2) / ((freedom + 1 - 2 / d) * spread)
    return float(np.clip(share, SMALLEST_SHRINKAGE, 1))


def covariance(router: Router) -> Float[np.ndarray, "D D"]:
    """S, shrunk, in float64; the identity where no feature varies within any class."""
    d = router.features
    own = router.scatter / max(router.freedom, 1)
    scale = float(np.trace(own)) / d
    if scale <= 0:
        return np.eye(d)
    share = shrinkage(router.scatter, router.freedom)
    return (1 - share) * own + share * scale * np.eye(d)


def routing_rule(router: Router, names: Sequence[str] | None = None) -> Rule:
    """What decides between tasks, for `task_scores` and `route`; made anew after each task, by one factorisation of S.

    Args:
        router: what is known.
        names: the tasks between which it decides, in the order of their ids, such as a bank's names; the router's own
            tasks in their order when None.

    Raises:
        TaskError: if there are no tasks, or the router does not know one of them.

    Example:
        >>> router = add_task(empty_router(2), "news", np.eye(2))
        >>> router = add_task(router, "mail", -np.eye(2))
        >>> rule = routing_rule(router, ["mail", "news"])  # id 0 is the task "mail"
        >>> route(rule, np.array([[1.0, 1.0], [-1.0, -1.0]]))
        Array([1, 0], dtype=int32)
    """
    chosen = router.names if names is None else tuple(names)
    for name in chosen:
        _known(router, name)
    if not chosen:
        fix = "add a task first"
        raise TaskError(message("tasks of the router", got="none", expected="at least one", fix=fix))
    own = [router.tasks[name] for name in chosen]
    centre = np.mean([task.means.mean(axis=0) for task in own], axis=0)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance(router))).T
    width = max(len(task.counts) for task in own)
    means = np.zeros((len(own), width, router.features))
    weights = np.full((len(own), width), -np.inf)
    for place, task in enumerate(own):
        means[place, : len(task.counts)] = (task.means - centre) @ whitening
        weights[place, : len(task.counts)] = np.log(task.counts / task.counts.sum())
    return Rule(*(jnp.asarray(array, jnp.float32) for array in (centre, whitening, means, weights)))


def task_scores(rule: Rule, features: Array | np.ndarray) -> Float[Array, "batch T"]:
    """The log density of each example under each task, up to a constant that all tasks share.

    An example with a number that is not finite has NaN for every task.

    Args:
        rule: from `routing_rule`; column i is its i-th task.
        features: (batch, D).

    Raises:
        InputError: if the features have another shape.

    Example:
        >>> router = add_task(empty_router(2), "news", np.eye(2))
        >>> router = add_task(router, "mail", -np.eye(2))
        >>> scores = task_scores(routing_rule(router), np.array([[1.0, 1.0]]))
        >>> scores.shape, bool(scores[0, 0] > scores[0, 1])
        ((1, 2), True)
    """
    shape, d = jnp.shape(features), rule.centre.shape[0]
    if len(shape) != 2 or shape[1] != d:
        fix = "pass the features that the router was made from"
        raise InputError(message("features to route", got=f"shape {shape}", expected=f"(batch, {d})", fix=fix))
    return _scores(rule, jnp.asarray(features, jnp.float32))


def route(rule: Rule, features: Array | np.ndarray) -> Int[Array, " batch"]:
    """The id of the likeliest task of each example, (batch,) int32.

    Within `jit` nothing can be refused: there, an example whose features are not finite, or too large for float32, gets
    the id -1, with which the library's models answer NaN.

    Args:
        rule: from `routing_rule`; id i is its i-th task.
        features: (batch, D).

    Raises:
        InputError: if the features have another shape, or are not finite or too large.

    Example:
        >>> router = add_task(empty_router(2), "news", np.eye(2))
        >>> router = add_task(router, "mail", -np.eye(2))
        >>> route(routing_rule(router), np.array([[1.0, 1.0], [-1.0, -1.0]]))
        Array([0, 1], dtype=int32)
    """
    found = task_scores(rule, features)
    ids = jnp.where(jnp.isfinite(jnp.max(found, axis=1)), jnp.argmax(found, axis=1), -1).astype(jnp.int32)
    if not isinstance(ids, Tracer) and (lost := np.flatnonzero(np.asarray(ids) < 0)).size:
        what, fix = f"features to route, example {lost[0]}", "look at what the model was given"
        raise InputError(message(what, got="numbers that are not finite", expected="finite numbers", fix=fix))
    return ids


def arrays_of(router: Router) -> dict[str, Any]:
    """The router as a nested dict of arrays, for a checkpoint; tasks by their number."""
    tasks = {f"{t:04d}": {"counts": own.counts, "means": own.means} for t, own in enumerate(router.tasks.values())}
    shared = {"scatter": router.scatter, "freedom": np.array([router.freedom], np.int64)}
    return {"shared": shared, "tasks": tasks} if tasks else {"shared": shared}


def router_of(names: Sequence[str], arrays: Mapping[str, Any]) -> Router:
    """The inverse of `arrays_of`, given the tasks' names."""
    shared, tasks = arrays["shared"], arrays.get("tasks", {})
    saved = [tasks[number] for number in sorted(tasks, key=int)]
    own = [TaskStatistics(np.asarray(each["counts"]), np.asarray(each["means"])) for each in saved]
    return Router(
        np.asarray(shared["scatter"]), int(np.asarray(shared["freedom"])[0]), dict(zip(names, own, strict=True))
    )


@jax.jit
def _scores(rule: Rule, features: Float[Array, "batch D"]) -> Float[Array, "batch T"]:
    x = _product(features - rule.centre[None], rule.whitening)
    tasks, width, d = rule.means.shape
    means = rule.means.reshape(tasks * width, d)
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(means * means, axis=1)[None]
    distances = squares - 2 * _product(x, means.T)
    own = -0.5 * distances.reshape(-1, tasks, width) + rule.log_weights[None]
    return logsumexp(own, axis=2)


def _product(x: Float[Array, "n m"], y: Float[Array, "m q"]) -> Float[Array, "n q"]:
    """`x @ y` in full: accelerators otherwise round the inputs of a float32 product to bf16."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _known(router: Router, name: str) -> None:
    if name not in router.tasks:
        near = difflib.get_close_matches(name, router.names, n=3, cutoff=0.3) or list(router.names[:3])
        expected = f"one of the router's {len(router.names)} tasks"
        fix = f"near matches: {', '.join(near)}" if near else "add a task first"
        raise TaskError(message("task of the router", got=repr(name), expected=expected, fix=fix))


def _examples(features: Any, d: int, what: str) -> Float[np.ndarray, "N D"]:
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] != d or not len(array) or not np.issubdtype(array.dtype, np.number):
        got, expected = f"{array.dtype} of shape {array.shape}", f"(examples, {d}), at least one example"
        raise InputError(message(what, got=got, expected=expected, fix="pass one feature vector per example"))
    examples = array.astype(np.float64)
    if (lost := np.flatnonzero(~np.isfinite(examples).all(axis=1))).size:
        fix = "look at what the model was given"
        raise InputError(
            message(f"{what}, example {lost[0]}", got="numbers that are not finite", expected="finite numbers", fix=fix)
        )
    return examples


def _groups(labels: Any, examples: int, name: str) -> Int[np.ndarray, " N"]:
    if labels is None:
        return np.zeros(examples, np.int64)
    array = np.asarray(labels)
    if array.shape != (examples,) or not np.issubdtype(array.dtype, np.integer):
        got, expected = f"{array.dtype} of shape {array.shape}", f"({examples},) whole numbers, one per example"
        fix = "pass each example's class, or no labels"
        raise InputError(message(f"labels of task {name!r}", got=got, expected=expected, fix=fix))
    return array


def _within(
    examples: Float[np.ndarray, "N D"], groups: Int[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " C"], Float[np.ndarray, "C D"], Float[np.ndarray, "D D"]]:
    """Counts and means of the classes, and the scatter around the means."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), examples.shape[1]))
    np.add.at(sums, place, examples)
    means = sums / counts[:, None]
    rest = examples - means[place]
    return counts.astype(np.int64), means, rest.T @ rest
