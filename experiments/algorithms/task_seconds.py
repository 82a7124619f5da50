"""How long each task took, read off a checkpoint: every task's record holds the wall time up to its end."""

from collections.abc import Mapping

from experiments.report.results import task_key
from share_jax.checkpoint.checkpoint import Checkpoint


def with_tasks(seconds: Mapping[str, float], store: Checkpoint) -> dict[str, float]:
    """Wall time by phase, with the total of the phases and the time of each learnt task, in seconds.

    A task's time is that of training, merging and evaluating, without preparing. Of a task that was resumed only the
    last life's part is known.
    """
    until = [sum(v for k, v in store.info(name)["seconds"].items() if k != "prepare") for name in store.names]
    spans = [now - before for before, now in zip([0.0, *until], until, strict=False)]
    tasks = {task_key(number): span for number, span in enumerate(spans, start=1)}
    return {**seconds, "total": sum(seconds.values()), **tasks}
