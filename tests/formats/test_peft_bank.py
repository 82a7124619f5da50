"""PEFT loads what a bank exports, and a bank takes what PEFT saves: the same logits on a tiny random BERT.

Runs where SHARE_JAX_PEFT_PYTHON names an interpreter that has peft and transformers.
"""

import os
import subprocess

import jax
import numpy as np
import pytest

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.formats.bank_tasks import export_peft, import_peft
from share_jax.models.bert import BertClassifier
from share_jax.models.bert_weights import bert_names, load_bert
from share_jax.trees import flat, nested

PYTHON = os.environ.get("SHARE_JAX_PEFT_PYTHON")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="SHARE_JAX_PEFT_PYTHON names no interpreter with peft and transformers"),
]
CLASSES = 3
COMMON = """
import copy, sys, numpy as np, torch
from pathlib import Path
from transformers import BertConfig, BertModel
from peft import LoraConfig, PeftModel, get_peft_model
root = Path(sys.argv[1])
class MeanBert(torch.nn.Module):  # the classifier of share_jax.models.bert
    def __init__(self, bert, classes):
        super().__init__()
        self.bert = bert
        self.classifier = torch.nn.Linear(bert.config.hidden_size, classes)
    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask[:, :, None].float()
        return self.classifier((hidden * weight).sum(1) / weight.sum(1))
def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(np.load(root / "ids.npy")), torch.tensor(np.load(root / "mask.npy"))).numpy()
"""
BASE = (
    COMMON
    + """
torch.manual_seed(0)
bert = BertModel(BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                            vocab_size=40, max_position_embeddings=12), add_pooling_layer=False)
for name, leaf in bert.named_parameters():
    leaf.data = name.endswith("LayerNorm.weight") + (0.3 if leaf.ndim > 1 else 0.1) * torch.randn(leaf.shape)
bert.save_pretrained(root / "base")
model = get_peft_model(MeanBert(bert, 3), LoraConfig(
    r=4, lora_alpha=7, target_modules=["query", "output.dense"], modules_to_save=["classifier"]))
for name, leaf in model.named_parameters():
    if "lora_" in name or "modules_to_save" in name:
        leaf.data = 0.3 * torch.randn(leaf.shape)
model.save_pretrained(root / "theirs")
np.save(root / "theirs.npy", logits(model))
"""
)
LOAD = (
    COMMON
    + """
bert = BertModel.from_pretrained(root / "base", add_pooling_layer=False)
for folder in sys.argv[2:]:
    model = PeftModel.from_pretrained(MeanBert(copy.deepcopy(bert), 3), folder)
    np.save(f"{folder}.npy", logits(model))
"""
)


def run(code, *argv):
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(PYTHON), "-c", code, *map(str, argv)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(folder with PEFT's adapter and logits, our model, its params, the batch)."""
    root = tmp_path_factory.mktemp("peft")
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(1, 40, (4, 10)), np.arange(10)[None] < np.array([10, 7, 5, 3])[:, None]
    np.save(root / "ids.npy", ids)
    np.save(root / "mask.npy", mask.astype(np.int64))
    run(BASE, root)
    config, encoder = load_bert(root / "base")
    model, batch = BertClassifier(config, CLASSES, normalize=False), (ids.astype(np.int32), mask.astype(np.int32))
    head = {"head/kernel": np.zeros((16, CLASSES), np.float32), "head/bias": np.zeros(CLASSES, np.float32)}
    params = nested({**{f"encoder/{path}": leaf for path, leaf in flat(encoder).items()}, **head})
    return root, model, params, batch


@pytest.mark.parametrize(
    "method", [share_jax.SharedA(4, 7), share_jax.SeparateLoRA(4, 7), share_jax.Share(6, 4)], ids=str
)
def test_peft_and_a_bank_give_each_others_logits(base, method, tmp_path):
    root, model, params, batch = base
    targets = ["encoder/.*/query/kernel", "encoder/.*/attention/out/kernel", "encoder/.*/ffn_down/kernel"]
    adapted = share_jax.adapt(model, {"params": params}, *batch, targets=targets, heads=["head/.*"], method=method)
    names = bert_names(model.config, CLASSES)
    trees = adapted.init(jax.random.key(0), params, 3)
    rng = np.random.default_rng(1)
    drawn = jax.tree.map(lambda leaf: np.asarray(0.3 * rng.standard_normal(leaf.shape), np.float32), trees["tasks"])
    bank = TaskBank(trees["shared"], drawn, ("first", "second"))

    def answers(bank, name):
        variables = {"params": params, "shared": bank.shared, "tasks": bank.tasks}
        return np.asarray(adapted.apply(variables, *batch, task_id=bank.index(name)))

    places = export_peft(bank, adapted, tmp_path, names, base_model="acme/tiny-bert")
    run(LOAD, root, *places.values())
    for name, place in places.items():
        np.testing.assert_allclose(np.load(f"{place}.npy"), answers(bank, name), atol=1e-5)
    back, _ = import_peft(root / "theirs", adapted, TaskBank(trees["shared"], trees["tasks"]), names)
    np.testing.assert_allclose(answers(back, "theirs"), np.load(root / "theirs.npy"), atol=1e-5)
