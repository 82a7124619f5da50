"""kohya's names of modules, in which every dot has become an underscore, and how that is undone.

`lora_unet_down_blocks_0_attentions_0_proj_in` is `down_blocks.0.attentions.0.proj_in`: which underscores were dots
follows from a list of the model's modules, or from the words that the names of known models are made of. A name that
can be read in two ways, or in none, is refused.

Source: sd-scripts `networks/lora.py`, `networks/lora_flux.py`; the words from the models' own layers.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from share_jax.errors import FormatError, message
from share_jax.storage.untrusted import shown

PREFIXES = {
    "lora_unet_": ("unet", "diffusion_model", "transformer"), "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",), "lora_te3_": ("text_encoder_3",), "lora_te_": ("text_encoder",),
    "lora_transformer_": ("transformer",), "lycoris_": ("unet", "diffusion_model", "transformer"),
}  # fmt: skip
"""How a name begins -> the components that it may be of."""


@dataclass(frozen=True)
class _Family:
    """Models whose layers' names are made of the same words."""

    component: str
    roots: frozenset[str]  # first words
    words: frozenset[str]  # further words


_ATTENTION = "transformer_blocks attn1 attn2 to_q to_k to_v to_out ff net proj proj_in proj_out norm norm1 norm2 norm3"
_CLIP = "text_model encoder layers self_attn q_proj k_proj v_proj out_proj mlp fc1 fc2 embeddings token_embedding"


def _family(component: str, roots: str, words: str) -> _Family:
    return _Family(component, frozenset(roots.split()), frozenset(words.split()))


FAMILIES = (
    _family("unet", "down_blocks up_blocks mid_block conv_in conv_out time_embedding add_embedding",
            f"{_ATTENTION} attentions resnets conv1 conv2 time_emb_proj conv_shortcut downsamplers upsamplers conv "
            "linear_1 linear_2"),
    _family("unet_original", "input_blocks middle_block output_blocks time_embed label_emb out",
            f"{_ATTENTION} in_layers out_layers emb_layers skip_connection op conv"),
    _family("diffusion_model", "double_blocks single_blocks img_in txt_in time_in vector_in guidance_in final_layer",
            "img_attn txt_attn qkv proj img_mlp txt_mlp img_mod txt_mod lin linear1 linear2 linear modulation in_layer "
            "out_layer adaLN_modulation norm"),
    _family("diffusion_model", "joint_blocks", "x_block context_block attn qkv proj mlp fc1 fc2 adaLN_modulation"),
    _family("diffusion_model", "blocks", "self_attn cross_attn q k v o k_img v_img ffn"),
    _family("diffusion_model", "layers noise_refiner context_refiner",
            "attention qkv out to_q to_k to_v to_out feed_forward w1 w2 w3 adaLN_modulation"),
    _family("transformer", "transformer_blocks single_transformer_blocks",
            "attn attn2 to_q to_k to_v to_out add_q_proj add_k_proj add_v_proj to_add_out ff ff_context net proj norm "
            "norm1 norm1_context linear proj_mlp proj_out img_mlp txt_mlp img_mod txt_mod"),
    _family("text_encoder", "text_model text_projection", f"{_CLIP} final_layer_norm"),
    _family("text_encoder", "encoder", "block layer SelfAttention DenseReluDense q k v o wi wi_0 wi_1 wo layers "
            "self_attn q_proj k_proj v_proj out_proj mlp fc1 fc2"),
)  # fmt: skip


_LEAVES = ("wi", "wo", "q", "k", "v", "o")
"""Words of layers that have no numbered parts: `wi_0` is one layer."""
_MOST_PIECES = 200
"""Of a name; those of real models have fewer than 30."""


def undone(name: str, label: str, modules: Mapping[str, tuple[str, ...]] | None = None) -> tuple[str, str]:
    """(component or `unet_original`, name with its dots) of a name without its end.

    Args:
        name: as `lora_unet_mid_block_attentions_0_proj_in`.
        label: for messages.
        modules: from `table_of`; when None, the words of the known models.

    Raises:
        FormatError: the name begins otherwise, or can be read in several ways or in none.
    """
    prefix = next((each for each in PREFIXES if name.startswith(each)), None)
    what = f"{label} {shown(name)}"
    if prefix is None:
        begin = ", ".join(PREFIXES)
        raise FormatError(message(what, got="another beginning", expected=begin, fix="check which tool wrote the file"))
    rest, components = name[len(prefix) :], PREFIXES[prefix]
    if modules is not None:
        found = {(components[0], module) for module in modules.get(rest, ())}
        fix = "give the list of the model that the adapter was trained on"
    else:
        found = {
            (components[0] if family.component.startswith("text") else family.component, ".".join(words))
            for family in FAMILIES
            if family.component.removesuffix("_original") in components or components[0].startswith(family.component)
            for words in _readings(rest.split("_"), family)
        }
        fix = "pass --modules FILE, the names of the model's modules (its weights, or a list of names)"
    if len(found) != 1:
        ways = " or ".join(sorted(module for _, module in found)) or "no module's name"
        raise FormatError(message(what, got=shown(ways), expected="one module's name", fix=fix))
    return found.pop()


def _readings(pieces: list[str], family: _Family) -> list[tuple[str, ...]]:
    """Every way to join neighbouring pieces to words of the family; at most two are looked for at each place."""
    if len(pieces) > _MOST_PIECES:
        return []
    longest = max(word.count("_") for word in family.roots | family.words) + 1
    ways: list[list[tuple[str, ...]]] = [[()], *([] for _ in pieces)]
    for end in range(1, len(pieces) + 1):
        for begin in range(max(0, end - longest), end):
            word = "_".join(pieces[begin:end])
            known = word in family.words or word.isdecimal() if begin else word in family.roots
            if known:
                before = (way for way in ways[begin][:2] if not (word.isdecimal() and way[-1] in _LEAVES))
                ways[end] += [(*way, word) for way in before]
        del ways[end][2:]
    return ways[-1]


def table_of(modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every name with underscores -> the modules that it may stand for."""
    out: dict[str, tuple[str, ...]] = {}
    for module in modules:
        out[flattened(module)] = (*out.get(flattened(module), ()), module)
    return out


def flattened(module: str) -> str:
    """A module's name as kohya has it, without what it begins with."""
    return module.replace(".", "_")


def looks_like_kohya(names: Collection[str]) -> bool:
    """Whether some of a file's names begin as kohya's do."""
    return any(re.match("|".join(PREFIXES), name) for name in names)
