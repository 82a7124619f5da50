"""Where arrays lie: adapters as their kernels, whatever the layer, and what does not divide is whole; mixed batches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parallel_job import CLASSES, METHODS, TASKS, ParallelJob, close, random_batch, random_tree

from share_jax import Learner, SharedA, SharedLoRADense, TaskHead, adapt
from share_jax.bank.bank import TaskBank
from share_jax.errors import InputError, TaskError
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.sharding.placement import local_rows, put, put_base, put_batch
from share_jax.train.step import make_predict
from share_jax.trees import flat

ALL = MeshShape(2, 2, 2)


class Zoo(nn.Module):
    """A convolution, an embedding, attention, and a layer whose width two does not divide."""

    @nn.compact
    def __call__(self, image, ids):
        x = nn.Conv(8, (3, 3), name="conv")(image).mean(axis=(1, 2))
        x = x[:, None] + nn.Embed(10, 8, name="embed")(ids)
        x = nn.MultiHeadDotProductAttention(4, name="attention")(x)
        return nn.Dense(5, name="odd")(nn.Dense(7, name="seven")(x))


def specs(tree) -> dict:
    return {path: tuple(leaf.spec) for path, leaf in flat(tree).items()}


@pytest.fixture(scope="module")
def zoo():
    image, ids = jnp.zeros((2, 6, 6, 4)), jnp.zeros((2, 3), jnp.int32)
    base = random_tree(jax.eval_shape(Zoo().init, jax.random.key(0), image, ids))
    targets = ["(conv|attention/.*|odd|seven)/kernel", "embed/embedding"]
    adapted = adapt(Zoo(), base, image, ids, targets=targets, method=SharedA(rank=3))
    trees = jax.eval_shape(lambda key: adapted.init(key, base["params"], TASKS), jax.random.key(0))
    return base, adapted, trees


def test_a_and_b_lie_as_their_kernels_do(zoo) -> None:
    base, adapted, trees = zoo
    layout = layout_of(make_mesh(ALL), base["params"], adapted)
    kernels, shared, tasks = (
        specs(layout.base(base)["params"]),
        specs(layout.shared(trees["shared"])),
        specs(layout.tasks(trees["tasks"])),
    )
    assert kernels["conv/kernel"] == (None, None, "fsdp", "tensor")  # 3 x 3 does not divide, its channels do
    assert kernels["embed/embedding"] == ("fsdp", "tensor")
    assert kernels["attention/query/kernel"] == ("fsdp", "tensor", None)
    assert kernels["attention/out/kernel"] == ("fsdp", None, "tensor")
    assert kernels["seven/kernel"] == ("fsdp", None)  # 8 -> 7
    assert kernels["odd/kernel"] == (None, None)  # 7 -> 5
    assert kernels["conv/bias"] == ()
    for path, spec in kernels.items():
        owner, _, name = path.rpartition("/")
        if name not in ("kernel", "embedding"):
            continue
        assert shared[f"{owner}/lora_a"] == ("fsdp" if "fsdp" in spec else None, None)
        assert tasks[f"{owner}/lora_b"] == (None, None, "tensor" if "tensor" in spec else None)
    assert "conv/kernel" in layout.table()
    assert "replicated, replicated, fsdp, tensor" in layout.table()


def test_heads_of_several_tasks_within_one_slot_lie_as_one_head_does(zoo) -> None:
    """As joint training has them: five heads at the path of one."""
    base, adapted, _ = zoo
    layout = layout_of(make_mesh(ALL), base["params"], adapted)
    stacked = {"seven": {"kernel": jax.ShapeDtypeStruct((5, 8, 7), jnp.float32)}}
    assert specs(layout.slot(stacked)) == {"seven/kernel": (None, "fsdp", None)}


def test_the_task_axis_is_split_by_a_rule_that_has_to_divide_it(zoo) -> None:
    base, adapted, trees = zoo
    layout = layout_of(make_mesh(ALL), base["params"], adapted, {"task": "data"})
    assert specs(layout.tasks(trees["tasks"]))["attention/out/lora_b"] == ("data", None, "tensor")
    three = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape[1:]), leaf.dtype), trees["tasks"])
    with pytest.raises(InputError, match="task slots: got 3, expected a multiple of 2"):
        layout.tasks(three)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"rows": "data"}, "sharding rule: got 'rows', expected one of batch, task, d_in, d_out"),
        ({"d_in": "model"}, "rule for d_in: got 'model', expected some of"),
        ({"task": "fsdp"}, "sharding rules: got 'fsdp' for two of task, d_in and d_out"),
    ],
)
def test_rules_that_do_not_fit_the_mesh_are_refused_in_one_line(zoo, rules, words) -> None:
    base, adapted, _ = zoo
    with pytest.raises(InputError, match=words):
        layout_of(make_mesh(ALL), base["params"], adapted, rules)


def test_a_model_of_ones_own_lies_by_the_names_of_its_leaves() -> None:
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, task_id):
            return TaskHead(4, num_tasks=TASKS, name="head")(
                SharedLoRADense(8, num_tasks=TASKS, name="up")(x, task_id), 0
            )

    variables = jax.eval_shape(lambda key: Own().init(key, jnp.zeros((2, 6)), 0), jax.random.key(0))
    layout = layout_of(make_mesh(ALL), variables["params"])
    assert specs(layout.shared(variables["shared"])) == {"up/lora_a": ("fsdp", None)}
    assert specs(layout.tasks(variables["tasks"])) == {
        "head/bias": (None, None),
        "head/kernel": (None, "fsdp", "tensor"),
        "up/lora_b": (None, None, "tensor"),
    }


@pytest.mark.parametrize("where", [None, "data"], ids=["replicated", "split"])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_different_tasks_is_answered_on_a_mesh_as_on_one_device(method: str, where: str | None) -> None:
    """With the stack of slots on every device, and split over them."""
    job = ParallelJob(method)
    layout = layout_of(make_mesh(ALL), job.base["params"], job.adapted, {"task": where})
    batch = {"inputs": random_batch()["inputs"], "tasks": np.arange(16, dtype=np.int32) * 3 % TASKS}

    def answer(tasks, base, shared, batch, run):
        return run(base, shared, job.adapted.slot(tasks, batch["tasks"]), batch["inputs"])

    want = answer(job.trees["tasks"], job.base, job.trees["shared"], batch, make_predict(job.forward))
    tasks = put(job.trees["tasks"], layout.tasks(job.trees["tasks"]))
    shared = put(job.trees["shared"], layout.shared(job.trees["shared"]))
    placed = put_base(layout, job.base), shared, put_batch(layout, batch)
    mesh = make_predict(job.forward, layout)
    got = jax.jit(lambda *trees: answer(*trees, mesh))(tasks, *placed)
    close(got, want)
    own = {**job.base, "shared": job.trees["shared"], "tasks": job.trees["tasks"]}
    alone = [job.adapted.apply(own, batch["inputs"][i : i + 1], task_id=int(batch["tasks"][i])) for i in range(3)]
    close(got[:3], jnp.concatenate(alone), 1e-5)
    with pytest.raises(TaskError, match=f"task_id: got {TASKS}"):
        job.adapted.slot(job.trees["tasks"], np.array([0, TASKS]))


@pytest.mark.parametrize("shape", [ALL, MeshShape(1, 4, 2)], ids=str)
@pytest.mark.parametrize("method", ["shared_a", "separate"])
def test_a_learner_on_a_mesh_predicts_a_task_and_ids_per_example_as_one_device(method: str, shape: MeshShape) -> None:
    """By one way: every weight is gathered where it is used, whichever slots are asked for."""
    job = ParallelJob(method)
    layout = layout_of(make_mesh(shape), job.base["params"], job.adapted)
    one, mesh = (Learner(job.adapted, job.base, optax.sgd(1.0), layout=each) for each in (None, layout))
    bank = TaskBank(job.trees["shared"], job.trees["tasks"], tuple("abcdefgh"))
    inputs = random_batch()["inputs"][:11]  # which the mesh does not divide
    for task in ("c", np.arange(11) * 3 % TASKS, list("abcdefghabc")):
        got = mesh.predict(bank, task, inputs)
        assert isinstance(got, np.ndarray)
        assert got.shape == (11, CLASSES)
        close(got, one.predict(bank, task, inputs))
    slot = job.adapted.slot(bank.tasks, 2)  # one task's, though it says how it is read
    close(mesh.answer(mesh.placed, bank.shared, slot, inputs), one.predict(bank, "c", inputs))


class WithTable(nn.Module):
    """Beside its answers, a table and a number that belong to no example."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(3)(x)
        return {"logits": y, "table": jnp.ones((20, 2)), "number": jnp.float32(2)}


def test_what_has_no_axis_of_examples_comes_from_a_mesh_as_from_one_device() -> None:
    model, x = WithTable(), np.ones((11, 4), np.float32)
    base = model.init(jax.random.key(0), x)
    adapted = adapt(model, base, x, targets=".*/kernel")
    layout = layout_of(make_mesh(ALL), base["params"], adapted)
    trees = adapted.init(jax.random.key(1), base["params"], num_tasks=2)
    bank = TaskBank(trees["shared"], trees["tasks"], ("a",))
    one, mesh = (Learner(adapted, base, optax.sgd(1.0), layout=each).predict(bank, "a", x) for each in (None, layout))
    assert {name: np.shape(leaf) for name, leaf in mesh.items()} == {"logits": (11, 3), "table": (20, 2), "number": ()}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), dict(mesh), dict(one))


def test_each_process_feeds_the_rows_of_its_devices() -> None:
    job = ParallelJob()
    layout = layout_of(make_mesh(ALL), job.base["params"], job.adapted)
    np.testing.assert_array_equal(local_rows(layout, 16), np.arange(16))
