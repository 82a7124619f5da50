"""PEFT itself as the judge. Runs where SHARE_JAX_PEFT_PYTHON names an interpreter that has peft and transformers."""

import os
import subprocess

import numpy as np
import pytest

from share_jax.cli.main import main
from share_jax.formats.peft import open_adapter

PYTHON = os.environ.get("SHARE_JAX_PEFT_PYTHON")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="SHARE_JAX_PEFT_PYTHON names no interpreter with peft and transformers"),
]

COMMON = """
import sys, copy, numpy as np, torch
from transformers import BertConfig, BertForSequenceClassification
from peft import LoraConfig, PeftModel, get_peft_model
torch.manual_seed(0)
config = BertConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
                    vocab_size=100, num_labels=3)
base = BertForSequenceClassification(config).eval()
ids = torch.randint(0, 100, (4, 12))
logits = lambda model: model(input_ids=ids).logits.detach().numpy()
root = sys.argv[1]
"""
MAKE = (
    COMMON
    + """
kinds = {
    "plain": dict(r=4, lora_alpha=8, target_modules=["query", "value"]),
    "patterns": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=r".*\\.(query|value|dense)", bias="lora_only",
                     rank_pattern={"layer.0.attention.self.query": 6}, alpha_pattern={"query": 5}),
}
for name, kind in kinds.items():
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="SEQ_CLS", **kind)).eval()
    for key, p in model.named_parameters():
        if "lora_" in key or p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    model.peft_config["default"].base_model_name_or_path = "acme/tiny-bert"
    model.save_pretrained(f"{root}/{name}")
    np.save(f"{root}/{name}.npy", logits(model))
"""
)
LOAD = COMMON + "np.save(sys.argv[3], logits(PeftModel.from_pretrained(copy.deepcopy(base), sys.argv[2]).eval()))\n"
APPLY = (
    COMMON
    + """
state = base.state_dict()
state.update({key: state[key] + torch.tensor(update) for key, update in np.load(sys.argv[2]).items()})
state.update({key: torch.tensor(value) for key, value in np.load(sys.argv[3]).items()})
base.load_state_dict(state)
np.save(sys.argv[4], logits(base))
"""
)


def run(code, *argv):
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(PYTHON), "-c", code, *map(str, argv)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("peft")
    run(MAKE, out)
    return out


@pytest.mark.parametrize("name", ["plain", "patterns"])
def test_property_11_peft_loads_an_exported_folder_and_gives_the_same_logits(root, name, capsys):
    for argv in (
        ["compress", root / name, "-o", root / f"{name}-set"],
        ["export", root / f"{name}-set", name, "-o", root / f"{name}-out"],
    ):
        code = main([*map(str, argv), *(["--explained-variance", "1"] if argv[0] == "compress" else [])])
        assert code == 0, capsys.readouterr().err
    run(LOAD, root, root / f"{name}-out", root / f"{name}-again.npy")
    np.testing.assert_allclose(np.load(root / f"{name}-again.npy"), np.load(root / f"{name}.npy"), atol=1e-5)


def test_property_11_the_factors_that_are_read_give_pefts_logits(root):
    source = open_adapter(root / "plain")
    np.savez(
        root / "updates.npz", **{f"{m}.weight": f.scale * (f.lora_a @ f.lora_b).T for m, f in source.adapter().items()}
    )
    np.savez(root / "heads.npz", **{k.removeprefix("base_model.model."): x.array() for k, x in source.extras().items()})
    run(APPLY, root, root / "updates.npz", root / "heads.npz", root / "read.npy")
    np.testing.assert_allclose(np.load(root / "read.npy"), np.load(root / "plain.npy"), atol=1e-5)
