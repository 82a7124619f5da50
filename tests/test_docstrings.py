"""Every example in a docstring of the library and of the experiments gives what it says.

Each runs in a new folder, in which those of some rooms find what they read: `ROOMS`.
"""

import ast
import doctest
import importlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import optax
import pytest
from adapter_makers import factors, write_peft
from pretrained_folders import pretrained_folder

from share_jax.bank import add_task, empty_router
from share_jax.checkpoint import create, save_bank, save_inflight, save_task
from share_jax.checkpoint.manifest import Identity
from share_jax.cli.main import main
from share_jax.language import LanguageSettings, open_language_bank, write_settings
from share_jax.models import prompt_features

ROOT = Path(__file__).parents[1]
FILES = sorted(path for part in ("share_jax", "experiments") for path in (ROOT / part).rglob("*.py"))
WITH_EXAMPLES = [path for path in FILES if ">>> " in path.read_text(encoding="utf-8")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def adapters(where: Path) -> None:
    """`cola` and `rte`, PEFT folders of one base model, and `set`, both compressed."""
    folders = [str(write_peft(where / name, factors(seed))) for seed, name in enumerate(("cola", "rte"))]
    assert main(["compress", *folders, "--output", str(where / "set")]) == 0


def checkpoints(where: Path) -> None:
    """`saved`, a checkpoint of the task `cola`, with a router, and with the task `rte` in flight."""
    store = create(where / "saved", Identity("bert", "0" * 64, {"name": "shared_a"}, ("ffn/kernel",), ()))
    shared, slot = {"lora_a": np.ones((4, 2))}, {"lora_b": np.ones((2, 3))}
    router = add_task(empty_router(2), "cola", np.eye(2))
    store = save_task(store, "cola", slot, {"accuracy": 0.8}, shared=shared, router=router)
    save_inflight(store, slot, {"task": "rte", "step": 20})


def pretrained(where: Path) -> None:
    """A checkpoint's folder of each kind of model: `bert`, `roberta`, `vit` and `decoder`."""
    for kind in ("bert", "roberta", "vit", "decoder"):
        made = pretrained_folder(kind, where)
        if made.parent != where:
            shutil.copytree(made, where / kind)


def language(where: Path) -> None:
    """`decoder`, a checkpoint's folder, and `bank`, which has the tasks `cats` and `dogs` on it, as yet untrained."""
    pretrained_folder("decoder", where)
    opened = open_language_bank(where / "bank", where / "decoder", LanguageSettings("decoder", rank=2, first_layer=1))
    (model, params, tokenizer), learner = opened.pretrained, opened.learner(optax.sgd(0.1))
    prompts, router = {"cats": ["the cat sat", "the cat"], "dogs": ["a dog sat", "a dog"]}, None
    for task, texts in prompts.items():
        features = prompt_features(model, params, texts, tokenizer=tokenizer)
        router = add_task(router or empty_router(features.shape[1]), task, features)
    bank = replace(learner.with_room(opened.bank, len(prompts)), names=tuple(prompts))
    save_bank(where / "bank", learner, bank, router=router)
    write_settings(where / "bank", replace(opened.settings, model="decoder"))


ROOMS: dict[str, Callable[[Path], None]] = {
    "adapter_set": adapters,
    "checkpoint": checkpoints,
    "formats": adapters,
    "language": language,
    "models": pretrained,
}
"""What makes the folders that the examples of a room read."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def examples(path: Path, module: ModuleType) -> Iterator[doctest.DocTest]:
    """The examples of each docstring of a file, also of what a decorator has made no function of."""
    parser, names = doctest.DocTestParser(), (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, names) else None
        if text and ">>> " in text:
            name, line = getattr(node, "name", module.__name__), getattr(node, "lineno", 0)
            yield parser.get_doctest(text, dict(vars(module)), name, str(path), line)


@pytest.fixture(scope="module")
def room_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path | None]:
    """The folder with what the examples of a file's room read, made once."""
    made: dict[Callable[[Path], None], Path] = {}

    def folder(path: Path) -> Path | None:
        make = ROOMS.get(path.parent.name)
        if make is not None and make not in made:
            made[make] = tmp_path_factory.mktemp(path.parent.name)
            make(made[make])
        return None if make is None else made[make]

    return folder


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_the_examples_of_a_module_are_right(
    path: Path, room_of: Callable[[Path], Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARE_JAX_CACHE", str(tmp_path / "cache"))
    runner, found, room = doctest.DocTestRunner(optionflags=FLAGS), 0, room_of(path)
    for found, example in enumerate(examples(path, importlib.import_module(module_name(path))), start=1):
        here = tmp_path / str(found)
        here.mkdir()
        if room is not None:
            shutil.copytree(room, here, dirs_exist_ok=True)
        monkeypatch.chdir(here)
        runner.run(example)
    assert found > 0
    assert runner.summarize().failed == 0
