"""What `import share_jax` alone gives: the curated names and every module, loaded when they are first used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import share_jax

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    """What a fresh interpreter prints, in which nothing has been loaded."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("first", ["", "share_jax.Learner", "share_jax.SharedA()"])
def test_modules_need_no_import_of_their_own_whatever_was_used_before(first: str) -> None:
    names = (
        "runtime.malloc.keep_freed",
        "storage.lock.hold",
        "subspace.factor_columns",
        "bank.bank.TaskBank",
        "linen.adapted_model.Adapted",
        "formats.peft",
        "linalg.angles",
        "metrics",
        "errors.message",
    )
    lines = "\n".join(f"share_jax.{name}" for name in names)
    assert run(f"import share_jax\n{first}\n{lines}\nprint('all')") == "all\n"


def test_what_is_not_asked_for_is_not_loaded() -> None:
    code = (
        "import share_jax, sys; share_jax.runtime.malloc; print('jax' in sys.modules, 'share_jax.train' in sys.modules)"
    )
    assert run(code).startswith("False ")
    assert run("import share_jax, sys; share_jax.train; print('optax' in sys.modules)") == "False\n"


def test_every_curated_name_is_there_and_dir_lists_them_alone() -> None:
    assert dir(share_jax) == sorted(share_jax.__all__)
    for name in share_jax.__all__:
        assert getattr(share_jax, name) is not None, name
    assert share_jax.LossSums is importlib.import_module("share_jax.train.losses").LossSums


@pytest.mark.parametrize("name", ["nothing", "Nothing", "_nothing", "train.learner", "__wrapped__", ""])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    for package in (share_jax, share_jax.train):
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute '{name}'"):
            getattr(package, name)
        assert not hasattr(package, name)
