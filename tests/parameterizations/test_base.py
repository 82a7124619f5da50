"""What a method declares of its leaves is what it makes, and nobody else knows a leaf or a method by its name."""

import ast
from pathlib import Path

import jax
import pytest

from share_jax.errors import InputError
from share_jax.parameterizations.base import LeafSpec, own_down, specs
from share_jax.parameterizations.built_in import BUILT_IN, built_in, leaf_specs
from share_jax.parameterizations.method_names import NAMES
from share_jax.parameterizations.shared_a import SharedA

LIBRARY = Path(__file__).parents[2] / "share_jax"
MATHEMATICS = {"parameterizations", "subspace", "formats", "adapter_set", "adapters"}
"""Where leaves' names are what is declared, the mathematics' own, or keys of files."""

METHODS = pytest.mark.parametrize("method", BUILT_IN, ids=lambda method: method.name)


@METHODS
def test_the_leaves_are_those_that_are_made(method):
    d_in, d_out = 7, 5
    made = {
        "shared": jax.eval_shape(lambda: method.init_shared(jax.random.key(0), d_in, d_out)),
        "task": jax.eval_shape(lambda: method.init_task(jax.random.key(0), d_in, d_out)),
    }
    declared = {(spec.owner, name): spec.shape for name, spec in method.leaves(d_in, d_out).items()}
    assert declared == {(owner, name): leaf.shape for owner, own in made.items() for name, leaf in own.items()}
    sides = {"d_in": d_in, "d_out": d_out}
    for spec in method.leaves(d_in, d_out).values():
        assert all(axis is None or sides[axis] == size for axis, size in zip(spec.axes, spec.shape, strict=True))


@METHODS
def test_a_first_product_is_shared_where_no_leaf_of_the_task_lies_along_the_input(method):
    shared = method.init_shared(jax.random.key(0), 7, 5)
    if own_down(method):
        with pytest.raises(KeyError, match=own_down(method)[0]):
            method.down(shared, {})
    else:
        assert method.down(shared, {}).shape[0] == 7


@METHODS
def test_a_pair_is_two_leaves_along_both_sides(method):
    if method.pair is not None:
        leaves = method.leaves(7, 5)
        assert set(method.pair) == set(leaves)
        assert [leaves[name].axes for name in method.pair] == [("d_in", None), (None, "d_out")]


def test_a_method_is_found_by_its_name():
    assert [built_in(method.name) for method in BUILT_IN] == list(BUILT_IN)
    assert built_in("module") is None
    assert set(NAMES) == {method.name for method in BUILT_IN} - {"share_adapt"}
    assert leaf_specs("shared")["basis_a"].trains == "never"
    assert leaf_specs("task")["basis_a"].trains == "always"


def test_a_method_may_not_give_a_librarys_leaf_name_another_meaning():
    class Turned(SharedA):
        name = "turned"

        def leaves(self, d_in, d_out):
            return {**super().leaves(d_in, d_out), "lora_b": LeafSpec((d_out, self.rank), ("d_out", None))}

    assert set(leaf_specs("shared", Turned())) == set(leaf_specs("shared"))
    with pytest.raises(InputError, match=r"leaf 'lora_b' of method 'turned': got axes .*'d_out', None.*own"):
        leaf_specs("task", Turned())


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"axes": ("d_in",)}, "axes of a leaf: got \\('d_in',\\), expected 2 entries"),
        ({"owner": "shared"}, "leaf of owner 'shared' trains: got 'always', expected first or never"),
        ({"trains": "first"}, "leaf of owner 'task' trains: got 'first', expected never or always"),
    ],
)
def test_a_leaf_that_cannot_be_is_refused(fields, match):
    with pytest.raises(InputError, match=match):
        LeafSpec(**{"shape": (3, 2), "axes": ("d_in", None), **fields})


def test_no_other_room_knows_a_method_or_a_leaf_by_its_name():
    names = {method.name for method in BUILT_IN}
    names |= {name for method in BUILT_IN for owner in ("shared", "task") for name in specs(method, owner)}
    files = [path for path in LIBRARY.rglob("*.py") if path.relative_to(LIBRARY).parts[0] not in MATHEMATICS | {"cli"}]
    known = [
        f"{path.relative_to(LIBRARY)}:{node.lineno} {node.value}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert len(files) > 50
    assert known == []
