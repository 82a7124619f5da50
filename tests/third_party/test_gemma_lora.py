"""The LoRA trees that gemma itself makes, read whole: gemma's own output is that of the base with the pairs merged."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from gemma_modules import gemma_module

from share_jax.formats import open_sources, save_lora_tree

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def text_model() -> tuple[nn.Module, Any]:
    config, modules, transformer = (gemma_module(f"gm.nn.{name}") for name in ("_config", "_modules", "_transformer"))
    kinds = modules.AttentionType.GLOBAL, modules.AttentionType.LOCAL_SLIDING
    sizes = {"num_embed": 32, "embed_dim": 16, "hidden_dim": 24, "num_heads": 2, "head_dim": 8, "num_kv_heads": 1}
    norms = {"use_post_attn_norm": True, "use_post_ffw_norm": True, "use_qk_norm": True, "final_logit_softcap": None}
    whole = config.TransformerConfig(**sizes, **norms, attention_types=kinds, sliding_window_size=4)
    return transformer.Transformer(config=whole, dtype=jnp.float32), jnp.arange(12).reshape(2, 6)


def attention() -> tuple[nn.Module, Any]:
    x = np.random.default_rng(0).standard_normal((2, 6, 16)).astype(np.float32)
    return nn.MultiHeadDotProductAttention(2), jnp.asarray(x)


INPUTS = {"q_einsum": 1, "kv_einsum": 2, "gating_einsum": 1}
"""The axis of a kernel's inputs, where it is not the first."""


def merged(kernels: dict[str, Any], module: str, pair: Any) -> None:
    """Adds a pair's update to the module's kernel."""
    path = "params/" + module.removeprefix("params.").replace(".", "/")
    path = next(name for name in (path, f"{path}/w", f"{path}/kernel") if name in kernels)
    axis = INPUTS.get(module.rpartition(".")[2], 0)
    shape = np.moveaxis(kernels[path], axis, 0).shape
    kernels[path] += np.moveaxis((pair.scale * pair.lora_a @ pair.lora_b).reshape(shape), 0, axis)


@pytest.mark.parametrize(("made", "pairs"), [(text_model, 10), (attention, 4)])
def test_a_whole_tree_is_read(tmp_path, made, pairs):
    model, x = made()
    with jax.numpy_rank_promotion("allow"):
        tuned = gemma_module("gm.nn._lora").LoRA(rank=4, model=model, dtype=jnp.float32)
        variables = tuned.init(jax.random.key(0), x)
        rng = np.random.default_rng(1)
        variables = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * rng.standard_normal(leaf.shape)), variables)
        save_lora_tree(tmp_path / "out", variables)
        adapter = open_sources([tmp_path / "out"])[0].adapter()
        assert len(adapter) == pairs
        leaves = flatten_dict(variables, sep="/")
        plain = {path: leaf.copy() for path, leaf in leaves.items() if "/lora/" not in path}
        kernels = {path: leaf.copy() for path, leaf in plain.items()}
        for module, pair in adapter.items():
            merged(kernels, module, pair)
        want, *others = (
            np.asarray(getattr(out, "logits", out))
            for out in (
                tuned.apply(variables, x),
                *(model.apply(unflatten_dict(v, sep="/"), x) for v in (kernels, plain)),
            )
        )
    np.testing.assert_allclose(others[0], want, rtol=1e-4, atol=1e-5)
    assert np.abs(others[1] - want).max() > 0.01
