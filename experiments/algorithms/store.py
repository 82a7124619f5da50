"""The checkpoint of a job, new or as the last run left it, and what its files take."""

from experiments.algorithms.job import Job
from share_jax.bank.accounting import bytes_on_disk
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint import repair
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.checkpoint.manifest import COPY, FILE, exists, identity_of
from share_jax.linen.adapted_model import Adapted
from share_jax.runtime.processes import agreed

_REPAIR = "--resume --repair"


def open_store(job: Job, adapted: Adapted) -> Checkpoint:
    """The job's checkpoint, new or as the last run left it.

    Raises:
        FormatError: if it is another model's, or damaged and --repair is not given.
    """
    identity = identity_of(job.backbone.name, job.backbone.params, adapted)
    if not agreed(exists(job.folder)):
        return ckpt.create(job.folder, identity)
    if not job.config.repair:
        repair.check_manifest(job.folder, _REPAIR)
        store = ckpt.open_checkpoint(job.folder, identity)
        repair.check(store, _REPAIR)
        return store
    restored = repair.restore_manifest(job.folder)
    store = ckpt.open_checkpoint(job.folder, identity)
    found = repair.find_damage(store)
    if found or restored:
        store = repair.repaired(store, found)
        job.progress.note(f"{job.name}, seed {job.seed}: repaired, goes on from {repair.state_of(store.manifest)}")
    return store


def bytes_of_files(store: Checkpoint) -> dict[str, int]:
    """Bytes of the checkpoint's files, counted: of what is shared, of all tasks, and of the manifest with its copy."""
    root, kept = store.root, store.manifest
    return {
        "files_shared": bytes_on_disk(root / kept.shared["path"]) if kept.shared else 0,
        "files_tasks": sum(bytes_on_disk(root / record["path"]) for record in kept.tasks.values()),
        "file_manifest": sum(bytes_on_disk(root / name) for name in (FILE, COPY)),
    }
