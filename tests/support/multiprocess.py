"""One process of several, over loopback: joins the others, trains on its own shard, saves or restores, prints JSON.

    python multiprocess.py PORT PROCESSES INDEX WHAT FOLDER

WHAT is "train", "save", "restore", "sigterm". It is ended with SIGKILL by whoever started it: after
`jax.distributed.initialize` a process swallows SIGTERM.
"""

import json
import os
import signal
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
port, processes, index, what, folder = sys.argv[1:6]
os.environ["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
os.environ["JAX_NUM_PROCESSES"], os.environ["JAX_PROCESS_ID"] = processes, index

import jax  # noqa: E402
import optax  # noqa: E402
from parallel_job import RAGGED, STEPS, ParallelJob, digest_of, random_batch, saved_tree, tree_of  # noqa: E402

from share_jax.checkpoint import checkpoint as ckpt  # noqa: E402
from share_jax.checkpoint.manifest import Identity  # noqa: E402
from share_jax.runtime import processes as group  # noqa: E402
from share_jax.sharding.layout import layout_of  # noqa: E402
from share_jax.sharding.mesh import make_mesh  # noqa: E402
from share_jax.sharding.mesh_shape import MeshShape  # noqa: E402
from share_jax.sharding.placement import feed, local_part, put_base, put_state  # noqa: E402
from share_jax.train.step import make_train_step  # noqa: E402

IDENTITY = Identity("toy", "0" * 64, {"name": "shared_a"}, ("layer/kernel",), ("head/bias",))


def shape() -> MeshShape:
    """Data alone on two processes; with weights split as well on four."""
    return MeshShape(2) if int(processes) == 2 else MeshShape(2, 2)


def train() -> dict:
    """The losses of some steps, every one awaited, and the digest of the adapter after them."""
    job = ParallelJob("shared_a", transform=optax.adamw(1e-2))
    layout = layout_of(make_mesh(shape()), job.base["params"], job.adapted)
    step = make_train_step(*job.parts, train_shared=True, layout=layout)
    state, base = put_state(layout, job.init_state()), put_base(layout, job.base)
    losses, rows = [], []
    for number in range(STEPS):
        whole = random_batch(RAGGED, seed=number)
        mine = local_part(layout, whole)
        rows.append(len(mine["labels"]))
        state, metrics = step(state, base, feed(layout, mine, len(whole["labels"])))
        losses.append(float(jax.block_until_ready(metrics["loss"])))
    end = group.to_host((state.shared, state.slot))
    return {"losses": losses, "rows": rows, "largest": max(float(abs(x).max()) for x in jax.tree.leaves(end))}


def layout_for_tree():
    """Weights split over the processes, so that none holds a whole leaf."""
    job = ParallelJob("shared_a")
    shape = MeshShape(1, 2) if int(processes) == 2 else MeshShape(1, 2, 2)
    return layout_of(make_mesh(shape), job.base["params"], job.adapted)


def save() -> dict:
    """Saves a known tree from this mesh, once in flight and once as a finished task."""
    layout = layout_for_tree()
    tree = tree_of(layout)
    store = ckpt.create(Path(folder), IDENTITY)
    store = ckpt.save_inflight(store, tree, {"task": "a", "step": 3})
    store = ckpt.save_task(store, "a", tree, {}, shared=tree)
    ckpt.save_inflight(store, tree, {"task": "b", "step": 5})
    return {"digest": digest_of(group.to_host(tree))}


def restore() -> dict:
    """Reads the known tree onto this mesh, whoever saved it."""
    layout = layout_for_tree()
    like = tree_of(layout, zeros=True)
    store = ckpt.open_checkpoint(Path(folder), IDENTITY)
    found = [ckpt.load_inflight(store, like), ckpt.load_task(store, "a", like), ckpt.load_shared(store, like)]
    for tree in found:
        same = jax.tree.map(lambda leaf, want: leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim), tree, like)
        assert all(jax.tree.leaves(same))
    return {"digests": [digest_of(group.to_host(tree)) for tree in found], "want": digest_of(saved_tree())}


def sigterm() -> dict:
    """A handler that is installed after the processes were joined hears SIGTERM."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    os.kill(os.getpid(), signal.SIGTERM)
    return {"heard": heard}


if __name__ == "__main__":
    group.initialize()
    print(json.dumps({**globals()[what](), "processes": jax.process_count(), "index": jax.process_index()}), flush=True)
    group.wait("end")
    signal.pause()
