"""What a tensor, or a PEFT configuration, of another method than LoRA is, so that it is refused by its name.

Their updates are no low-rank pair: Hadamard and Kronecker products, rotations, rescaled activations, soft prompts.

Source: LyCORIS `lycoris/modules`; ComfyUI `comfy/weight_adapter`; PEFT `tuners` and `utils/peft_types.py`.
"""

_PARTS = {
    "hada": "LoHa", "lokr": "LoKr", "oft": "OFT", "boft": "BOFT", "glora": "GLoRA", "hra": "HRA", "ia3": "IA3",
    "diff": "a whole difference of weights", "diff_b": "a difference of biases", "set_weight": "a whole weight",
    "w_norm": "a difference of norms", "b_norm": "a difference of norms", "on_input": "IA3", "a1": "GLoRA",
    "a2": "GLoRA", "b1": "GLoRA", "b2": "GLoRA", "reshape_weight": "a reshaped weight", "vera": "VeRA",
    "randlora": "RandLoRA", "fourierft": "FourierFT", "lora_E": "AdaLoRA", "prompt_embeddings": "prompt tuning",
}  # fmt: skip
"""A part of a tensor's name, or what stands before its first underscore -> what it is."""

METHODS = {
    "ADALORA": "AdaLoRA", "ADAPTION_PROMPT": "LLaMA-Adapter", "BOFT": "BOFT", "BONE": "Bone", "FOURIERFT": "FourierFT",
    "HRA": "HRA", "IA3": "IA3", "LN_TUNING": "tuned norms", "LOHA": "LoHa", "LOKR": "LoKr", "MISS": "MiSS",
    "MULTITASK_PROMPT_TUNING": "prompt tuning", "OFT": "OFT", "POLY": "Poly", "PREFIX_TUNING": "prefix tuning",
    "PROMPT_TUNING": "prompt tuning", "P_TUNING": "prompt tuning", "RANDLORA": "RandLoRA", "ROAD": "RoAd",
    "TRAINABLE_TOKENS": "trained tokens", "VBLORA": "VB-LoRA", "VERA": "VeRA", "XLORA": "X-LoRA",
}  # fmt: skip
"""`peft_type` -> the method."""


def kind_of(key: str) -> str | None:
    """What a tensor of another method is, by its name; None where the name does not tell.

    >>> kind_of("lora_unet_mid_block.hada_w1_a"), kind_of("model.k_proj.ia3_l"), kind_of("q_proj.lora_A.weight")
    ('LoHa', 'IA3', None)
    """
    for part in reversed(key.split(".")[-2:]):
        known = _PARTS.get(part) or _PARTS.get(part.partition("_")[0] if part.partition("_")[2] else "")
        if known is not None:
            return known
    return None
