"""A disk that is full in the midst of a save: one clear line, and the last good state, from which it goes on."""

import logging
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stored import IDENTITY

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint import repair
from share_jax.errors import SaveError


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred kB; root alone may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small tmpfs needs root; the limit on file sizes is tested without")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def short_files() -> Iterator[None]:
    """No file may be longer than 64 kB; the system then answers as for a full disk, without a signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def big(seed: int, size: int = 6000) -> dict:
    """Numbers that do not compress."""
    return {"layer": {"lora_b": np.random.default_rng(seed).standard_normal(size).astype(np.float32)}}


def same(store: ckpt.Checkpoint, name: str, want: dict) -> None:
    got = ckpt.load_task(store, name, want)
    np.testing.assert_array_equal(np.asarray(got["layer"]["lora_b"]), want["layer"]["lora_b"])


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(error: BaseException, words: str, logs: pytest.LogCaptureFixture) -> None:
    assert words in str(error)
    assert "kept in" in str(error)
    assert "\n" not in str(error)
    assert [record for record in logs.records if record.levelno >= logging.ERROR] == []


def test_a_full_disk_keeps_the_last_good_state(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ckpt.create(small / "run", IDENTITY)
    while True:
        before, saved = files_of(store.root), len(store.names)
        assert saved < 40
        try:
            store = ckpt.save_task(store, f"{saved}", big(saved), {}, shared=big(100 + saved))
        except SaveError as error:
            caught = error
            break
    assert saved > 1
    refused(caught, f"saving task '{saved}': got No space left on device", caplog)
    assert files_of(store.root) == before
    again = ckpt.open_checkpoint(store.root, IDENTITY)
    assert again.names == tuple(map(str, range(saved)))
    assert repair.find_damage(again) == ()
    for done in range(saved):
        same(again, f"{done}", big(done))
    after = ckpt.save_inflight(again, big(0, 8), {"task": "small", "step": 1})
    assert after.manifest.inflight is not None


def test_a_disk_that_is_full_at_the_manifest_alone_keeps_the_last_good_state(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ckpt.save_task(ckpt.create(small / "run", IDENTITY), "a", big(1), {})
    before = files_of(store.root)
    with pytest.raises(SaveError) as caught:
        ckpt.save_task(store, "b", big(2), {"long": "x" * 300_000})
    refused(caught.value, "got No space left on device", caplog)
    assert files_of(store.root) == before
    same(ckpt.open_checkpoint(store.root, IDENTITY), "a", big(1))


def test_a_limit_on_file_sizes_is_answered_alike(
    tmp_path: Path, short_files: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = ckpt.save_task(ckpt.create(tmp_path / "run", IDENTITY), "a", big(1), {})
    before = files_of(store.root)
    with pytest.raises(SaveError) as caught:
        ckpt.save_inflight(store, big(2, 200_000), {"task": "b", "step": 1})
    refused(caught.value, "saving the training in flight: got File too large", caplog)
    assert files_of(store.root) == before
    store = ckpt.save_inflight(store, big(2), {"task": "b", "step": 1})
    same(ckpt.open_checkpoint(store.root, IDENTITY), "a", big(1))
