"""Banks to PEFT folders and back; folders that PEFT saved answer here as they do there, from stored references."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from random_banks import HEADED, METHODS, MODELS, TASKS, adapted_with, empty_bank, logits, random_bank
from safetensors.numpy import load_file

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.errors import InputError, TargetError, TaskError
from share_jax.formats.bank_tasks import export_peft, import_peft
from share_jax.formats.flax_names import to_modules
from share_jax.formats.peft import open_adapter
from share_jax.models.bert import BertClassifier, BertConfig
from share_jax.models.bert_weights import bert_names
from share_jax.models.roberta import RobertaClassifier, load_roberta, roberta_names
from share_jax.models.vit import VitClassifier
from share_jax.models.vit_weights import load_vit, vit_names
from share_jax.trees import flat, nested, shapes

DATA = Path(__file__).parents[1] / "data"


def roberta_tiny():
    config, encoder = load_roberta(DATA / "roberta_tiny")
    targets = ["encoder/.*/query/kernel", "encoder/.*/out/kernel", "encoder/.*/ffn_up/kernel"]
    return RobertaClassifier(config, 3), encoder, targets, roberta_names(config, 3), ("input_ids", "attention_mask")


def vit_tiny():
    config, encoder = load_vit(DATA / "vit_tiny")
    targets = ["encoder/.*/value/kernel", "encoder/.*/out/kernel", "encoder/.*/ffn_down/kernel"]
    return VitClassifier(config, 3), encoder, targets, vit_names(config, 3), ("pixel_values",)


MAKE = {"peft_roberta_tiny": roberta_tiny, "peft_vit_tiny": vit_tiny}


@pytest.fixture(scope="module", params=MAKE)
def tiny(request):
    """(adapted model, its params, an empty bank, names, inputs, PEFT's logits, PEFT's folder)."""
    model, encoder, targets, names, inputs = MAKE[request.param]()
    with np.load(DATA / request.param / "reference.npz") as stored:
        batch, expected = [stored[name] for name in inputs], stored["logits"]
    batch = [x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in batch]
    fresh = jax.eval_shape(lambda: model.init(jax.random.key(0), *batch))["params"]
    head = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat(fresh).items() if path.startswith("head/")}
    params = nested({**{f"encoder/{path}": leaf for path, leaf in flat(encoder).items()}, **head})
    method = share_jax.SeparateLoRA(rank=2, alpha=3)
    adapted = share_jax.adapt(model, {"params": params}, *batch, targets=targets, heads=["head/.*"], method=method)
    trees = adapted.init(jax.random.key(1), params, 1)
    bank = TaskBank(trees["shared"], trees["tasks"])
    return adapted, params, bank, names, batch, expected, DATA / request.param


def answers(adapted, params, bank, name, batch):
    variables = {"params": params, "shared": bank.shared, "tasks": bank.tasks}
    return np.asarray(adapted.apply(variables, *batch, task_id=bank.index(name)))


def test_a_folder_of_peft_gives_pefts_logits(tiny):
    adapted, params, bank, names, batch, expected, folder = tiny
    after, reports = import_peft(folder, adapted, bank, names)
    assert after.names == (folder.name,)
    assert reports[folder.name].error_bound < 1e-12
    np.testing.assert_allclose(answers(adapted, params, after, folder.name, batch), expected, atol=1e-5)


def test_it_leaves_as_pefts_own_file_to_the_bit(tiny, tmp_path):
    adapted, _, bank, names, _, _, folder = tiny
    after, _ = import_peft(folder, adapted, bank, names)
    place = export_peft(after, adapted, tmp_path / "out", names, base_model="acme/tiny")[folder.name]
    ours, theirs = (load_file(x / "adapter_model.safetensors") for x in (place, folder))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    config = json.loads((place / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (2, 3, "acme/tiny")
    assert all(name.startswith("classifier") for name in config["modules_to_save"])


def test_what_a_folder_adapts_and_saves_has_to_be_the_models(tiny, tmp_path):
    adapted, params, bank, names, batch, _, folder = tiny
    shutil.copytree(folder, tmp_path / "other")
    less = {name: leaf for name, leaf in names.items() if not name.startswith("classifier")}
    with pytest.raises(TargetError, match=r"tensor classifier.* not in the table of names"):
        import_peft(tmp_path / "other", adapted, bank, less)
    fewer = share_jax.adapt(
        adapted.model, {"params": params}, *batch, targets=["encoder/.*/out/kernel"], heads=["head/.*"],
        method=adapted.method,
    )  # fmt: skip
    with pytest.raises(TargetError, match=r"adapter other module .* expected one of the 2 targets; adapt that kernel"):
        import_peft(tmp_path / "other", fewer, bank, names)
    headless = share_jax.adapt(
        adapted.model, {"params": params}, *batch, targets=[t.path for t in adapted.targets], method=adapted.method
    )
    with pytest.raises(TargetError, match=r"adapt with heads=\['head/"):
        import_peft(tmp_path / "other", headless, bank, names)


@pytest.mark.parametrize("model", [MODELS["plain"], MODELS["scanned"], HEADED], ids=["plain", "scanned", "headed"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_bank_goes_out_as_folders_and_comes_back(method, model, tmp_path):
    adapted, base = adapted_with(method, model)
    bank = random_bank(adapted, base)
    places = export_peft(bank, adapted, tmp_path / "out")
    assert list(places) == list(TASKS)
    after, reports = import_peft(list(places.values()), adapted, empty_bank(adapted, base))
    assert after.names == TASKS
    assert max(report.error_bound for report in reports.values()) < 2e-6
    for task in TASKS:
        np.testing.assert_allclose(logits(adapted, base, after, task), logits(adapted, base, bank, task), atol=1e-5)
    source = open_adapter(places["first"])
    assert {layer.scale for layer in source.layers.values()} == {method.scale}
    assert len(source.layers) == sum(target.stacked or 1 for target in adapted.targets)


def test_modules_may_be_named_one_by_one(tmp_path):
    adapted, base = adapted_with(METHODS[1], HEADED)
    bank = random_bank(adapted, base)
    names = {"Dense_0": "fc.out", "Dense_1": "fc.in"}
    place = export_peft(bank, adapted, tmp_path, names)["first"]
    assert sorted(load_file(place / "adapter_model.safetensors")) == [
        "base_model.model.fc.in.bias", "base_model.model.fc.in.weight",
        "base_model.model.fc.out.lora_A.weight", "base_model.model.fc.out.lora_B.weight",
    ]  # fmt: skip
    after, _ = import_peft(place, adapted, empty_bank(adapted, base), names)
    np.testing.assert_array_equal(logits(adapted, base, after, "first"), logits(adapted, base, bank, "first"))
    for wrong, said in (
        ({"Dense_0": "fc"}, "'Dense_1': got no name"),
        ({**names, "Dense_2": "x"}, "'Dense_2': got a name"),
    ):
        with pytest.raises(TargetError, match=said):
            export_peft(bank, adapted, tmp_path / "other", wrong)


def test_what_cannot_leave_is_refused_before_anything_is_written(tmp_path):
    adapted, base = adapted_with(METHODS[1])
    with pytest.raises(InputError, match="learn a task first"):
        export_peft(empty_bank(adapted, base), adapted, tmp_path / "out")
    with pytest.raises(TaskError, match="task name"):
        export_peft(random_bank(adapted, base, ("a/b",)), adapted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    bank = random_bank(adapted, base)
    export_peft(bank, adapted, tmp_path / "out")
    with pytest.raises(InputError, match="overwrite=True"):
        export_peft(bank, adapted, tmp_path / "out")
    export_peft(bank, adapted, tmp_path / "out", overwrite=True)


def test_a_models_own_names_cover_its_params():
    bert = BertConfig(40, 16, 2, 2, 24, 12)
    (vit, _), (roberta, _) = load_vit(DATA / "vit_tiny"), load_roberta(DATA / "roberta_tiny")
    tokens, image = np.ones((1, 4), np.int32), np.ones((1, 8, 8, 3), np.float32)
    cases = (
        (BertClassifier(bert, 3), bert_names(bert, 3), (tokens, tokens)),
        (RobertaClassifier(roberta, 3), roberta_names(roberta, 3), (tokens, tokens)),
        (VitClassifier(vit, 3), vit_names(vit, 3), (image,)),
        (VitClassifier(vit, 3), vit_names(vit, 3, transformers=4), (image,)),
    )
    for model, names, inputs in cases:
        params = jax.eval_shape(lambda m=model, x=inputs: m.init(jax.random.key(0), *x))["params"]
        assert {leaf.place: leaf.shape for leaf in names.values()} == shapes(params)


def test_a_kernel_that_is_no_linear_modules_does_not_leave():
    *_, names, _ = vit_tiny()
    patch = {"encoder/patch/kernel": next(iter(open_adapter(DATA / "peft_vit_tiny").adapter().values()))}
    with pytest.raises(TargetError, match=r"kernel encoder/patch/kernel: got vit.embeddings.*linear module"):
        to_modules(names, patch)
