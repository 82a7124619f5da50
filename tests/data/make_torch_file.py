"""Writes `torch_tiny/`: a file of `torch.save` with views and several dtypes, and its values; needs PyTorch.

python tests/data/make_torch_file.py
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

torch.manual_seed(0)
out = Path(__file__).parent / "torch_tiny"
out.mkdir(exist_ok=True)
base = torch.randn(6, 8)
tensors = OrderedDict(
    matrix=torch.randn(3, 4), transposed=torch.randn(4, 5).T, view=base[2:4, 1:5], number=torch.tensor(2.5),
    bfloat16=torch.randn(3, 2).bfloat16(), parameter=torch.nn.Parameter(torch.randn(2)), empty=torch.zeros(0, 3),
    whole=torch.arange(4),
)  # fmt: skip
torch.save(tensors, out / "tensors.bin")
np.savez(out / "values.npz", **{name: value.detach().double().numpy() for name, value in tensors.items()})
