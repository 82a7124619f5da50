"""Huge pages: who gets them, and that a program's temporary memory then costs few mappings and no other bit."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from share_jax import memory
from share_jax.memory import ask_for_huge_pages

PROGRAM = """
import resource
import jax, jax.numpy as jnp
x = jnp.arange(3072.0**2).reshape(3072, 3072)
run = jax.jit(lambda x: jnp.cumsum(jnp.cumsum(x, axis=0) + x.T, axis=1).sum(axis=0)).lower(x).compile()
pages = run.memory_analysis().temp_size_in_bytes / resource.getpagesize()
results = [run(x).block_until_ready() for _ in range(2)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
results += [run(x).block_until_ready() for _ in range(2)]
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (2 * pages), [float(x[7]) for x in results])
"""

COMMAND = """
import os, sys
sys.path.insert(0, sys.argv[1])
from share_jax.memory import start_again_with_huge_pages
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.argv[2:], flush=True)
start_again_with_huge_pages()
print("goes on", flush=True)
"""


@pytest.fixture
def on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system that gives huge pages on request, and a C library that can ask; the file that says so."""
    told = tmp_path / "enabled"
    told.write_text("always [madvise] never\n")
    monkeypatch.setattr(memory, "_ENABLED", told)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return told


def test_the_setting_is_added_to_what_is_there(on_request: Path) -> None:
    environment = {"GLIBC_TUNABLES": "glibc.malloc.check=1", "HOME": "x"}
    assert ask_for_huge_pages(environment)
    assert environment == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1", "HOME": "x"}
    assert not ask_for_huge_pages(environment)
    fresh: dict[str, str] = {}
    assert ask_for_huge_pages(fresh)
    assert fresh == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_what_the_user_has_set_stays(on_request: Path) -> None:
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert not ask_for_huge_pages(environment)
    assert environment == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}


@pytest.mark.parametrize("told", ["[always] madvise never", "always madvise [never]", None])
def test_a_system_that_would_not_heed_it_is_not_asked(on_request: Path, told: str | None) -> None:
    on_request.unlink()
    if told is not None:
        on_request.write_text(told)
    environment: dict[str, str] = {}
    assert not ask_for_huge_pages(environment)
    assert environment == {}


@pytest.mark.parametrize("library", [("glibc", "2.31"), ("", ""), ("musl", "1.2.4")])
def test_a_c_library_without_the_setting_is_left_alone(
    on_request: Path, monkeypatch: pytest.MonkeyPatch, library: tuple[str, str]
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    assert not ask_for_huge_pages({})


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}


def _faults(environment: dict[str, str]) -> tuple[float, str]:
    """Mappings for each page of the program's temporary memory, and what it computed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    part, _, results = done.stdout.strip().partition(" ")
    return float(part), results


@pytest.mark.skipif(not ask_for_huge_pages(_plain()), reason="no huge pages on request here")
def test_temporary_memory_costs_few_mappings_and_the_results_are_the_same() -> None:
    environment = _plain()
    without, expected = _faults(environment)
    assert ask_for_huge_pages(environment)
    asked, results = _faults(environment)
    print(f"mappings for each page: {without:.3f}, with huge pages {asked:.3f}")
    assert asked < without / 4  # a huge page is 512 small ones; some memory may be too scattered for them
    assert results == expected


@pytest.mark.skipif(not ask_for_huge_pages(_plain()), reason="no huge pages on request here")
def test_a_command_starts_again_once_as_the_same_process(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    root = str(Path(memory.__file__).parents[1])
    words = [sys.executable, str(tmp_path / "command.py"), root, "--a", "b c"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=_plain())
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    number, _, rest = first.partition(" ")
    assert rest == "None --a b c"
    assert second == f"{number} glibc.malloc.hugetlb=1 --a b c"
    assert third == "goes on"
