"""PEFT loads the tasks of a language model's bank, family by family, and a bank takes what PEFT saves: the same logits.

Runs where SHARE_JAX_PEFT_PYTHON names an interpreter that has peft and transformers.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_folders import DATA, small_tokenizer

from share_jax.cli.main import main
from share_jax.language import LanguageBank, open_language_bank

PYTHON = os.environ.get("SHARE_JAX_PEFT_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="SHARE_JAX_PEFT_PYTHON names no interpreter with peft and transformers"),
]
FAMILIES = sorted(path.name for path in (DATA / "decoders").iterdir())
IDS = np.random.default_rng(0).integers(1, 60, (3, 10))
ATOL = 1e-4
COMMON = """
import sys, numpy as np, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from peft import LoraConfig, PeftModel, get_peft_model
base, ids, *rest = sys.argv[1:]
def fresh(): return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
def save(model, place):
    cap = getattr(model.config, "attn_logit_softcapping", None)
    extra = {} if cap is None else {"softcap": cap}  # its eager attention takes one, but Gemma 3's layers pass none on
    with torch.no_grad():
        np.save(place, model.eval()(input_ids=torch.tensor(np.load(ids)), **extra).logits.numpy())
"""
LOAD = "for folder in rest: save(PeftModel.from_pretrained(fresh(), folder), folder + '.npy')"
THEIRS = """
torch.manual_seed(0)
model = get_peft_model(fresh(), LoraConfig(
    r=2, lora_alpha=3, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    layers_to_transform=[1]))
for name, leaf in model.named_parameters():
    if "lora_" in name:
        leaf.data = 0.2 * torch.randn(leaf.shape)
model.save_pretrained(rest[0])
save(model, rest[0] + ".npy")
"""


def run(code: str, *argv: object) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run([str(PYTHON), "-c", COMMON + code, *map(str, argv)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def logits(opened: LanguageBank, task: str) -> np.ndarray:
    variables = {"params": opened.pretrained.params, "shared": opened.bank.shared, "tasks": opened.bank.tasks}
    ids = jnp.asarray(IDS, jnp.int32)
    return np.asarray(opened.adapted.apply(variables, ids, task_id=opened.bank.index(task)))


def learnt(family: str, method: str, root: Path) -> tuple[Path, Path]:
    """(the family's model, a bank with two tasks that `share-jax learn` made)."""
    model, bank = root / "model", root / "bank"
    shutil.copytree(DATA / "decoders" / family, model)
    small_tokenizer(["<end>"], 60).save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    for task, answer in (("sql", "SELECT name"), ("mongo", "db . shops . find")):
        lines = [json.dumps({"prompt": asked, "completion": answer}) for asked in ("the cat", "a dog", "the dog")]
        (root / f"{task}.jsonl").write_text("\n".join(lines))
        made = ["--model", str(model), "--method", method, "--first-layer", "1", "--rank", "2"]
        words = ["learn", str(bank), "--task", task, "--data", str(root / f"{task}.jsonl")]
        words += ["--epochs", "6", "--batch-size", "3", "--learning-rate", "0.05", *([] if bank.exists() else made)]
        assert main(words) == 0
    return model, bank


@pytest.mark.parametrize(
    ("family", "method"), [*((each, "shared_a") for each in FAMILIES), ("llama", "share"), ("qwen2", "separate")]
)
def test_peft_and_a_bank_give_each_others_logits(family: str, method: str, tmp_path: Path) -> None:
    model, bank = learnt(family, method, tmp_path)
    ids = tmp_path / "ids.npy"
    np.save(ids, IDS)
    assert main(["export", str(bank), "--all", "-o", str(tmp_path / "peft")]) == 0
    opened = open_language_bank(bank)
    tasks = ("sql", "mongo")
    run(LOAD, model, ids, *(tmp_path / "peft" / task for task in tasks))
    ours = [logits(opened, task) for task in tasks]
    assert np.abs(ours[0] - ours[1]).max() > 100 * ATOL  # the tasks have learnt unlike things
    for task, own in zip(tasks, ours, strict=True):
        np.testing.assert_allclose(np.load(tmp_path / "peft" / f"{task}.npy"), own, atol=ATOL)
    if method == "separate":  # an A and a B of each task's own: any adapter is taken as it is
        run(THEIRS, model, ids, tmp_path / "theirs")
        assert main(["import", str(bank), str(tmp_path / "theirs")]) == 0
        theirs = logits(open_language_bank(bank), "theirs")
        np.testing.assert_allclose(theirs, np.load(tmp_path / "theirs.npy"), atol=ATOL)
