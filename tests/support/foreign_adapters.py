"""Small adapters as diffusers, kohya, ComfyUI and MLX-LM write them, made without the code under test."""

import json

import numpy as np
from safetensors.numpy import save_file

BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0."


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def diffusers_tensors(rank=4):
    """A file of Stable Diffusion 1 that mixes three ways to name a pair, as its trainers do."""
    encoder = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    return {
        f"{BLOCK}attn1.to_q.lora.down.weight": normal(0, rank, 8),
        f"{BLOCK}attn1.to_q.lora.up.weight": normal(1, 8, rank),
        f"{BLOCK}attn1.processor.to_out_lora.down.weight": normal(2, rank, 8),
        f"{BLOCK}attn1.processor.to_out_lora.up.weight": normal(3, 8, rank),
        f"{BLOCK}ff.net.0.proj.lora_A.weight": normal(4, rank, 8),
        f"{BLOCK}ff.net.0.proj.lora_B.weight": normal(5, 64, rank),
        "unet.down_blocks.0.resnets.0.conv1.lora_A.weight": normal(6, rank, 8, 3, 3),
        "unet.down_blocks.0.resnets.0.conv1.lora_B.weight": normal(7, 8, rank, 1, 1),
        f"{encoder}.lora_linear_layer.down.weight": normal(8, rank, 6),
        f"{encoder}.lora_linear_layer.up.weight": normal(9, 6, rank),
    }  # fmt: skip


def write_diffusers(folder, tensors=None, configs=None):
    folder.mkdir(parents=True)
    metadata = {"format": "pt"} if configs is None else {"format": "pt", "lora_adapter_metadata": json.dumps(configs)}
    tensors = diffusers_tensors() if tensors is None else tensors
    save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata)
    return folder


def kohya_tensors(alpha=1.5, dtype=np.float16):
    """Layers of Stable Diffusion XL by sd-scripts' names; the linear ones have rank 4, the convolution 2."""
    shapes = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": ((4, 8), (8, 4)),
        "lora_unet_output_blocks_2_1_transformer_blocks_1_ff_net_0_proj": ((4, 8), (64, 4)),
        "lora_unet_input_blocks_4_0_in_layers_2": ((2, 8, 3, 3), (8, 2, 1, 1)),
        "lora_te2_text_model_encoder_layers_3_mlp_fc1": ((4, 6), (24, 4)),
    }
    out = {}
    for i, (name, (down, up)) in enumerate(shapes.items()):
        out[f"{name}.lora_down.weight"] = normal(i, *down, dtype=dtype)
        out[f"{name}.lora_up.weight"] = normal(i + 9, *up, dtype=dtype)
        if alpha is not None:
            out[f"{name}.alpha"] = np.asarray(alpha + i, dtype)
    return out


def write_file(path, tensors, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)
    return path


def flux_tensors():
    shapes = {"double_blocks.0.img_attn.qkv": (8, 24), "single_blocks.1.linear1": (8, 40)}
    out = {}
    for name, (d_in, d_out) in shapes.items():
        out[f"diffusion_model.{name}.lora_A.weight"] = normal(0, 4, d_in)
        out[f"diffusion_model.{name}.lora_B.weight"] = normal(1, d_out, 4)
    return out


def write_mlx(folder, layers=(2, 3), rank=4, scale=20.0, dora=False, config=None):
    folder.mkdir(parents=True)
    tensors = {}
    for layer in layers:
        for name, (d_in, d_out) in {"self_attn.q_proj": (8, 10), "mlp.down_proj": (16, 8)}.items():
            module = f"model.layers.{layer}.{name}"
            tensors[f"{module}.lora_a"] = normal(layer, d_in, rank)
            tensors[f"{module}.lora_b"] = normal(layer + 9, rank, d_out)
            if dora:
                tensors[f"{module}.m"] = normal(layer, d_out)
    save_file(tensors, folder / "adapters.safetensors", {"format": "mlx"})
    own = {"fine_tune_type": "dora" if dora else "lora", "num_layers": len(layers), "model": "acme/tiny",
           "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0}}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(own if config is None else config))
    return folder
