"""What the peer's process can make, by name."""
# pyright: reportMissingImports=false

import torch

from experiments.bench.peers.compressors import Lorashare, Vlora
from experiments.bench.peers.llama_cpp_decoding import LlamaCppGeneration
from experiments.bench.peers.protocol import Kinds
from experiments.bench.peers.torch_decoders import (
    DecoderForward,
    DecoderGeneration,
    DecoderLogits,
    DecoderMixed,
    DecoderStep,
)
from experiments.bench.peers.torch_products import Product
from experiments.bench.peers.torch_serving import Serving
from experiments.bench.peers.torch_steps import Forward, Step

KINDS: Kinds = {
    "forward": Forward,
    "step": Step,
    "serving": Serving,
    "product": Product,
    "decoder logits": DecoderLogits,
    "decoder forward": DecoderForward,
    "decoder step": DecoderStep,
    "decoder mixed": DecoderMixed,
    "decoder generation": DecoderGeneration,
    "llama.cpp generation": LlamaCppGeneration,
    "lorashare": Lorashare,
    "vlora": Vlora,
}


def use_threads(count: int) -> None:
    """Limits torch to so many threads."""
    torch.set_num_threads(count)
