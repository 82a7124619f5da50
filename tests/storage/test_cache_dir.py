"""Where compiled programs are kept, and when nothing is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from adapter_makers import write_adapters

from share_jax.storage.cache_dir import keep_compiled


def test_programs_are_kept_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARE_JAX_CACHE", str(tmp_path / "cache"))
    settings: dict[str, str] = {}
    keep_compiled(settings)
    folder = Path(settings["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.parent == tmp_path / "cache" / "compiled"
    assert settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARE_JAX_CACHE", str(tmp_path / "cache"))
    settings = {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}
    keep_compiled(settings)
    assert settings == {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHARE_JAX_CACHE", str(tmp_path / "file" / "cache"))
    settings: dict[str, str] = {}
    keep_compiled(settings)
    assert settings == {}


def test_a_second_command_finds_the_programs_of_the_first(tmp_path: Path) -> None:
    """And writes the same set: what was kept computes what was compiled."""
    folders = write_adapters(tmp_path / "adapters", 3)
    environment = {**os.environ, "SHARE_JAX_CACHE": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    kept, sets = [], []
    for out in ("one", "two"):
        words = [
            "-m",
            "share_jax.cli.main",
            "compress",
            *map(str, folders),
            "-o",
            str(tmp_path / out),
            "--explained-variance",
            "0.9",
        ]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        programs = (tmp_path / "cache" / "compiled").glob("*/*-cache")
        kept.append({path.name: path.stat().st_mtime_ns for path in programs})
        sets.append({p.name: p.read_bytes() for p in sorted((tmp_path / out).rglob("*.safetensors"))})
    assert kept[0]
    assert kept[1] == kept[0]
    assert sets[0] == sets[1]
