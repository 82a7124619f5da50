"""How long each task took, read off a checkpoint: every task's record holds the wall time up to its end."""

from share_jax.train.checkpoint import Checkpoint


def seconds_per_task(store: Checkpoint) -> list[float]:
    """Wall time of each learnt task in seconds, in their order: training, merging and evaluating, without preparing.

    Of a task that was resumed only the last life's part is known.
    """
    until = [sum(v for k, v in store.info(name)["seconds"].items() if k != "prepare") for name in store.names]
    return [now - before for before, now in zip([0.0, *until], until, strict=False)]
