"""The rules of the folders, held by walking the source: who may import whom, and what nobody may write."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 400

HOUSE = (
    "cli",
    "language",
    "checkpoint",
    "train",
    "adapting",
    "linen",
    "nnx",
    "models",
    "traced",
    "sharding",
    "adapter_set",
    "formats",
    "subspace",
    "adapted_trees",
    "adapted",
    "model_inputs",
    "layers",
    "bank",
    "adapters",
    "linalg",
    "parameterizations",
    "ops",
    "text",
    "storage",
    "runtime",
    "trees",
    "metrics",
    "number_checks",
    "errors",
    "typing",
    "annotations",
)
"""Every room of the library, from the roof down: a room imports from itself and from those below."""

NO_FLAX = (
    "adapters", "bank", "errors", "linalg", "metrics", "number_checks", "ops", "parameterizations", "runtime",
    "storage", "subspace", "text", "typing",
)  # fmt: skip
SEAMS = {"linen", "nnx", "models"}
"""Where module classes are known; what trains, shards and saves knows `share_jax.adapted` alone."""

MODULE_SYSTEMS = ("flax.linen", "flax.nnx")
ABOVE_SEAMS = {"train", "sharding", "checkpoint"}

FRAMEWORKS = {"flax", "optax", "orbax"}
OUTSIDE = {
    "tensorflow",
    "tensorflow_datasets",
    "tfds",
    "torch",
    "transformers",
    "matplotlib",
    "pandas",
    "experiments",
    "tests",
}
OPTIONAL = {f"share_jax/cli/{name}.py": {"matplotlib"} for name in ("heatmap", "error_plot")}
"""What a file may import of those when it is called, and without which all else works."""
NO_JAX = ("linalg", "adapters", "subspace", "text", "cli")
WITH_JAX = {f"share_jax/subspace/{name}.py" for name in ("serving", "from_bank", "into_bank")}
"""The files of those rooms that take arrays from Flax's trees, or make them."""
HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax", "chex", "tensorflow", "torch", "scipy", "rich", "matplotlib"}

LIBRARY = sorted((ROOT / "share_jax").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def package_of(name):
    """The package, as a tuple, against which a file's relative imports are read."""
    return Path(name).parts[:-1]


@cache
def read(source, name):
    """The modules that a file imports, with names taken from packages, and the habits that nobody may have.

    Both wherever they stand in the file, which is walked once.
    """
    package, imported, habits = package_of(name), set(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            imported |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            habits.append(f"line {node.lineno}: bare except")
        elif isinstance(node, ast.Assert) and name.startswith("share_jax/"):
            habits.append(f"line {node.lineno}: assert")
        elif isinstance(node, ast.Attribute) and node.attr == "_src" and ast.unparse(node.value) == "jax":
            habits.append(f"line {node.lineno}: jax._src")
    return frozenset(imported), tuple(habits)


def imports_of(source, name):
    """Every module that a file imports."""
    return read(source, name)[0]


def part_of(module):
    """The part of the library that a module belongs to, None for the package itself or another library."""
    parts = module.split(".")
    return parts[1] if parts[0] == "share_jax" and len(parts) > 1 else None


def part_of_file(name):
    parts = Path(name).with_suffix("").parts
    return None if parts[1] == "__init__" else parts[1]


def broken_rules(source, name):
    """Every rule on imports that one file of the library breaks, as text."""
    part = part_of_file(name)
    imported = imports_of(source, name)
    tops = {module.split(".")[0] for module in imported}
    broken = [f"imports {top}" for top in sorted(tops & (OUTSIDE - OPTIONAL.get(name, set())))]
    if part in NO_FLAX:
        broken += [f"imports {top}" for top in sorted(tops & FRAMEWORKS)]
    if part not in SEAMS:
        broken += [f"imports {module}" for module in sorted(imported) if module.startswith(MODULE_SYSTEMS)]
    if part in ABOVE_SEAMS:
        broken += [f"imports {module}" for module in sorted(imported) if part_of(module) in SEAMS]
    if part in NO_JAX and name not in WITH_JAX:
        broken += [f"imports {top}" for top in sorted(tops & {"jax", "jaxlib"})]
    if part is None:
        return broken  # the curated names; what they load at import is held below
    if part not in HOUSE:
        return [*broken, f"{part} has no place: give it one in HOUSE"]
    for other in sorted({part_of(module) for module in imported} - {None, part, "__version__"}):
        if other not in HOUSE:
            broken.append(f"imports {other} from the package itself, not from its own module")
        elif HOUSE.index(other) < HOUSE.index(part):
            broken.append(f"{part} imports {other}, which stands above it")
    return broken


def broken_habits(source, name):
    """What a file writes that nobody may: private JAX, a bare except, in the library an assert."""
    imported, habits = read(source, name)
    return [f"imports {module}" for module in imported if f"{module}.".startswith("jax._src.")] + list(habits)


def broken_in(paths, rules):
    """What files break, by their names; only those that break something."""
    found = {name_of(path): rules(path.read_text(encoding="utf-8"), name_of(path)) for path in paths}
    return {name: broken for name, broken in found.items() if broken}


def test_library_imports_only_downwards():
    assert broken_in(LIBRARY, broken_rules) == {}


def test_no_forbidden_habits():
    assert broken_in(LIBRARY + EXPERIMENTS, broken_habits) == {}


def circles_of(files):
    """The sets of files of which each imports every other, itself or through others, wherever the imports stand.

    Args:
      files: source by name, as `share_jax/bank/slots.py`.
    """
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in files}
    graph = {}
    for name, source in files.items():
        starts = {modules.get(module) or modules.get(module.rpartition(".")[0]) for module in imports_of(source, name)}
        graph[name] = starts - {None, name}
    reach = {}
    for name in graph:
        seen, todo = set(), [name]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        reach[name] = seen
    circles = {name: frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return {circle for circle in circles.values() if circle}


def test_no_file_imports_one_that_imports_it():
    files = {name_of(path): path.read_text(encoding="utf-8") for path in LIBRARY + EXPERIMENTS}
    assert circles_of(files) == set()


def test_a_circle_of_files_is_found():
    files = {
        "share_jax/a/b.py": "if TYPE_CHECKING:\n    from share_jax.a.c import C",
        "share_jax/a/c.py": "def f():\n    from share_jax.d import e",
        "share_jax/d/__init__.py": "",
        "share_jax/d/e.py": "import share_jax.a.b\nfrom share_jax import d",
        "share_jax/f.py": "from share_jax.a.b import C",
    }
    assert circles_of(files) == {frozenset({"share_jax/a/b.py", "share_jax/a/c.py", "share_jax/d/e.py"})}


def test_no_file_is_longer_than_it_should_be():
    lengths = {name_of(path): len(path.read_bytes().splitlines()) for path in LIBRARY + EXPERIMENTS + TESTS}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def loaded_by(statement):
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_library_loads_nothing_heavy():
    loaded = loaded_by("import share_jax")
    assert "share_jax" in loaded
    assert loaded & HEAVY == set()


def test_the_command_line_of_runs_is_read_before_anything_heavy_is_loaded():
    assert loaded_by("import experiments.tables.jobs, experiments.run") & {"jax", "flax", "optax"} == set()


def test_measures_need_no_jax():
    assert loaded_by("import share_jax.metrics") & {"jax", "flax", "optax"} == set()


def test_every_file_is_walked():
    walked = {name_of(path) for path in LIBRARY}
    assert {"share_jax/metrics.py", "share_jax/bank/__init__.py", "share_jax/linalg/spectrum.py"} <= walked
    assert "experiments/report/results.py" in {name_of(path) for path in EXPERIMENTS}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("share_jax/linalg/a.py", "from share_jax.subspace import merge"),
        ("share_jax/linalg/a.py", "from ..subspace.merge import merge"),
        ("share_jax/bank/a.py", "def f():\n    from share_jax import linen"),
        ("share_jax/layers/a.py", "import share_jax.train.step"),
        ("share_jax/train/a.py", "from share_jax.cli.main import main"),
        ("share_jax/bank/a.py", "import flax.linen as nn"),
        ("share_jax/layers/a.py", "from flax import linen as nn"),
        ("share_jax/train/a.py", "from share_jax.linen.adapted_model import Adapted"),
        ("share_jax/sharding/a.py", "def f():\n    import share_jax.linen.remat"),
        ("share_jax/metrics.py", "import optax"),
        ("share_jax/linalg/a.py", "from orbax import checkpoint"),
        ("share_jax/train/a.py", "import tensorflow_datasets as tfds"),
        ("share_jax/formats/a.py", "if True:\n    import torch"),
        ("share_jax/cli/a.py", "from matplotlib.figure import Figure"),
        ("share_jax/subspace/a.py", "def f():\n    import jax.numpy as jnp"),
        ("share_jax/linen/a.py", "from experiments.models import bert"),
        ("share_jax/linen/a.py", "from share_jax import SharedA"),
        ("share_jax/unknown/a.py", "import numpy"),
        ("share_jax/__init__.py", "import pandas"),
    ],
)
def test_a_broken_import_rule_is_found(name, source):
    assert broken_rules(source, name)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("share_jax/subspace/a.py", "from share_jax.linalg.spectrum import spectra\nfrom . import merge\nimport numpy"),
        ("share_jax/linen/a.py", "import flax\nfrom share_jax import bank\nfrom share_jax.errors import message"),
        ("share_jax/cli/main.py", "from share_jax import train, formats"),
        ("share_jax/formats/a.py", "import safetensors\nfrom .peft import read"),
    ],
)
def test_what_is_allowed_is_let_through(name, source):
    assert broken_rules(source, name) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("share_jax/bank/a.py", "assert True"),
        ("share_jax/bank/a.py", "try:\n    pass\nexcept:\n    pass"),
        ("experiments/a.py", "from jax._src import core"),
        ("experiments/a.py", "import jax._src.core"),
        ("experiments/a.py", "import jax\njax._src.core"),
    ],
)
def test_a_bad_habit_is_found(name, source):
    assert broken_habits(source, name)
