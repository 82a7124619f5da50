"""Trees in memory and of Orbax become PEFT folders: by the call, and by the lines that a refusal gives."""

import re

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from flax import nnx
from foreign_adapters import normal

import share_jax
from share_jax.cli.main import main
from share_jax.errors import FormatError, InputError
from share_jax.formats import open_sources, save_lora_tree

STACK = {"layers": {"mlp": {"up": {"w_lora_a": normal(0, 3, 5, 4), "w_lora_b": normal(1, 3, 4, 7)}}}}


def adapter_of(folder):
    return open_sources([folder])[0].adapter()


def check_stack(folder, scale):
    adapter = adapter_of(folder)
    assert list(adapter) == [f"layers.{i}.mlp.up" for i in range(3)]
    for i, pair in enumerate(adapter.values()):
        np.testing.assert_array_equal(pair.lora_a, STACK["layers"]["mlp"]["up"]["w_lora_a"][i])
        np.testing.assert_array_equal(pair.lora_b, STACK["layers"]["mlp"]["up"]["w_lora_b"][i])
        assert pair.scale == scale


class Block(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.fc = nnx.LoRALinear(5, 7, lora_rank=4, rngs=rngs)
        self.out = nnx.LoRA(7, 4, 3, rngs=rngs)
        self.plain = nnx.Linear(3, 3, rngs=rngs)


def test_the_state_of_an_nnx_module(tmp_path):
    model = Block()
    for state in (nnx.state(model), nnx.state(model, nnx.LoRAParam), nnx.to_pure_dict(nnx.state(model))):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        assert sorted(save_lora_tree(folder, state, base_model="acme/tiny")) == ["fc", "out"]
        adapter = adapter_of(folder)
        np.testing.assert_array_equal(adapter["out"].lora_a, model.out.lora_a.get_raw_value())
        np.testing.assert_array_equal(adapter["fc"].lora_b, model.fc.lora.lora_b.get_raw_value())
        assert {pair.scale for pair in adapter.values()} == {1.0}


def test_alpha_axes_dtypes_and_lists(tmp_path):
    a, b = normal(0, 4, 4, 4), normal(1, 4, 4, 7)
    for axis in (0, 1):
        save_lora_tree(tmp_path / f"{axis}", {"x": [{"lora_a": a, "lora_b": b}]}, alpha=2, layer_axis=axis)
        pair = adapter_of(tmp_path / f"{axis}")["x.0.3"]
        np.testing.assert_array_equal(pair.lora_b, b.take(3, axis))
        assert pair.scale == 0.5
    half = {"q/lora/a": jnp.ones((5, 4), jnp.bfloat16), "q/lora/b": jnp.ones((4, 7), jnp.bfloat16)}
    save_lora_tree(tmp_path / "half", half)
    assert {layer.dtype for layer in open_sources([tmp_path / "half"])[0].layers.values()} == {"BF16"}


@pytest.mark.parametrize(
    ("tree", "options", "line"),
    [
        (STACK, {}, "w_lora_a without an alpha, .* pass alpha="), ({"w": normal(0, 2)}, {}, "got no pairs"),
        (STACK, {"alpha": "x"}, "alpha: got 'x'"), (STACK, {"alpha": True}, "alpha: got True"),
        (STACK, {"alpha": 1, "layer_axis": 2}, "along axis 2, .* pass another layer_axis"),
        ({"q": {"lora_a": normal(0, 2, 3)}}, {}, "expected lora_a and lora_b"),
        ({"q": {"lora_a": np.ones((2, 3), int), "lora_b": normal(0, 3, 2)}}, {}, "int64, expected floats"),
        ({"q": {"lora_a": [["x"]], "lora_b": normal(0, 3, 2)}}, {}, "expected"),
        ({"q": {"lora_a": np.full((2, 3), np.nan), "lora_b": normal(0, 3, 2)}}, {}, "a NaN or an infinity"),
    ],
)  # fmt: skip
def test_what_is_no_tree_of_pairs_is_one_line(tmp_path, tree, options, line):
    with pytest.raises((FormatError, InputError), match=line) as error:
        save_lora_tree(tmp_path / "out", tree, **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays(tmp_path):
    with pytest.raises(InputError, match="something there"):
        save_lora_tree(tmp_path, STACK, alpha=1)
    with pytest.raises(InputError, match="no folder"):
        save_lora_tree(tmp_path / "no" / "x", STACK, alpha=1)


def saved_by_orbax(root):
    """Folders of trees as Orbax's checkpointers lay them down, by name; the steps of a manager come last."""
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(root / "standard", STACK)
    orbax.checkpoint.PyTreeCheckpointer().save(root / "pytree", STACK)
    with orbax.checkpoint.CheckpointManager(root / "steps") as manager:
        manager.save(3, args=orbax.checkpoint.args.StandardSave(STACK))
    return [root / "standard", root / "pytree", root / "steps" / "3", root / "steps"]


def test_a_checkpoint_of_orbax_is_refused_with_the_lines_that_go_on(tmp_path, capsys):
    *trees, steps = saved_by_orbax(tmp_path)
    for words in (["compress", str(steps), "-o", str(tmp_path / "set")], ["plan", str(steps)]):
        assert main(words) == 2
        assert "got checkpoints of Orbax in folders of their own, expected" in (err := capsys.readouterr().err)
        assert f"name one: {steps / '3'}" in err
    for i, folder in enumerate(trees):
        assert main(["convert", str(folder), "-o", str(tmp_path / "out"), "--to", "peft"]) == 2
        err = capsys.readouterr().err
        assert "got a checkpoint of Orbax, which needs JAX" in err
        first, second = re.search(r"in Python: (.*); (share_jax\..*)\n", err).groups()
        names = {"orbax": orbax, "share_jax": share_jax, "OUT": tmp_path / f"out{i}", "ALPHA": 8}
        exec(first, names)
        exec(second, names)
        check_stack(tmp_path / f"out{i}", 2.0)
