"""PEFT's pairs that are no two matrices, and what lies beside pairs: into a set and back, by dense updates of NumPy."""

import json

import numpy as np
import pytest
from adapter_makers import CONFIG
from safetensors.numpy import load_file, save_file
from torch_files import write_torch

from share_jax.errors import FormatError, InputError
from share_jax.formats.bank_tasks import check_plain
from share_jax.formats.peft import open_adapter

RNG = np.random.default_rng(0)
P = "base_model.model."


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


KINDS = {
    "embedding": (
        lambda: {"emb.lora_embedding_A": normal(4, 11), "emb.lora_embedding_B": normal(6, 4)},
        {"target_modules": ["emb"]},
    ),
    "conv1d": (lambda: {"c.lora_A.weight": normal(4, 5, 3), "c.lora_B.weight": normal(7, 4, 1)}, {}),
    "conv2d": (lambda: {"c.lora_A.weight": normal(4, 5, 3, 3), "c.lora_B.weight": normal(7, 4, 1, 1)}, {}),
    "lora_bias": (
        lambda: {"c.lora_A.weight": normal(4, 5), "c.lora_B.weight": normal(7, 4), "c.lora_B.bias": normal(7)},
        {"lora_bias": True},
    ),
    "dora": (
        lambda: {"c.lora_A.weight": normal(4, 5, 3, 3), "c.lora_B.weight": normal(7, 4, 1, 1),
                 "c.lora_magnitude_vector": normal(1, 7, 1, 1)},
        {"use_dora": True},
    ),
    "experts": (
        lambda: {"m.experts.base_layer.lora_A.weight": normal(12, 5),
                 "m.experts.base_layer.lora_B.weight": normal(7, 12),
                 "m.experts.lora_A.weight": normal(12, 8), "m.experts.lora_B.weight": normal(5, 12)},
        {"target_modules": [], "target_parameters": ["experts.up", "experts.down"]},
    ),
}  # fmt: skip


def write(folder, tensors, pickled=False, **changes):
    folder.mkdir(parents=True)
    named = {P + key: value for key, value in tensors.items()}
    if pickled:
        write_torch(folder / "adapter_model.bin", named)
    else:
        save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {**CONFIG, "target_modules": ["c"], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def dense(tensors, scale):
    """Module -> update, of tensors as PEFT stores them, at rank 4."""
    out = {}
    for key in tensors:
        if "lora_A" in key or "embedding_A" in key:
            a, b = (np.asarray(tensors[k], np.float64) for k in (key, key.replace("_A", "_B")))
            a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
            if "experts" in key:
                a, b = a.reshape(3, -1, a.shape[1]), b.reshape(b.shape[0], -1, 3)
                out[key] = scale * np.einsum("ore,eri->eoi", b, a)
            else:
                out[key] = scale * b @ a
    return out


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_into_a_set_and_back(run, tmp_path, kind, pickled):
    make, changes = KINDS[kind]
    made = [make() for _ in range(2)]
    folders = [write(tmp_path / f"t{i}", tensors, pickled, **changes) for i, tensors in enumerate(made)]
    code, data, err = run("compress", *folders, "-o", tmp_path / "set", "--explained-variance", 1)
    assert (code, err) == (0, [])
    assert data["relative_error"]["max"] < 1e-6
    code, data, err = run("export", tmp_path / "set", "t1", "-o", tmp_path / "back")
    assert (code, err) == (0, [])
    back = load_file(tmp_path / "back" / "adapter_model.safetensors")
    assert {key: value.shape for key, value in back.items()} == {P + k: v.shape for k, v in made[1].items()}
    config = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    for key, update in dense(made[1], 2.0).items():
        found = dense(back, 2.0)[P + key]
        assert np.linalg.norm(found - update) < 1e-6 * np.linalg.norm(update)
    for key, value in made[1].items():
        if "bias" in key or "magnitude" in key:
            np.testing.assert_array_equal(back[P + key], value)


def test_a_bias_of_lora_b_follows_a_scale_that_is_written_anew(run, tmp_path):
    tensors = {"c.lora_A.weight": normal(4, 5), "c.lora_B.weight": normal(7, 4), "c.lora_B.bias": normal(7)}
    folder = write(tmp_path / "t", tensors, lora_bias=True, rank_pattern={"c": 4}, r=8)
    run("compress", folder, "-o", tmp_path / "set")
    assert run("export", tmp_path / "set", "t", "-o", tmp_path / "back")[0] == 0
    config = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    back = load_file(tmp_path / "back" / "adapter_model.safetensors")
    np.testing.assert_allclose(back[f"{P}c.lora_B.bias"], 2 * tensors["c.lora_B.bias"], rtol=1e-6)


def test_experts_keep_one_rank_when_it_changes(run, tmp_path):
    make, changes = KINDS["experts"]
    tensors = {**make(), "q.lora_A.weight": normal(6, 9), "q.lora_B.weight": normal(7, 6)}
    folder = write(tmp_path / "t", tensors, **{**changes, "target_modules": ["q"], "rank_pattern": {"q": 6}})
    assert run("compress", folder, "-o", tmp_path / "set")[0] == 0
    assert run("export", tmp_path / "set", "t", "-o", tmp_path / "back")[0] == 0
    first, back = open_adapter(folder), open_adapter(tmp_path / "back")
    assert back.config["r"] == 6
    assert back.config["rank_pattern"] == {}
    for name, was in first.adapter().items():
        now = back.adapter()[name]
        update = was.scale * np.float64(was.lora_a) @ was.lora_b
        np.testing.assert_allclose(now.scale * np.float64(now.lora_a) @ now.lora_b, update, atol=1e-5)


@pytest.mark.parametrize(
    ("tensors", "changes", "line"),
    [
        ({"c.lora_A.weight": normal(4, 6, 3), "c.lora_B.weight": normal(8, 2, 1)}, {}, "convolution with 2 groups"),
        ({"c.lora_A.weight": normal(4, 6, 3), "c.lora_B.weight": normal(8, 4, 3)}, {}, "lora_B is pointwise"),
        (KINDS["dora"][0](), {}, "use_dora False, but a tensor for c"),
        ({"c.lora_A.weight": normal(4, 6), "c.lora_B.weight": normal(8, 4)}, {"use_dora": True}, "nothing for c"),
        ({**KINDS["dora"][0](), "c.lora_magnitude_vector": normal(3)}, {"use_dora": True}, "for each output"),
        ({"m.experts.lora_A.weight": normal(7, 6), "m.experts.lora_B.weight": normal(8, 7)},
         {"target_parameters": ["experts.up"]}, "a multiple of 4: one set per expert"),
        ({"c.lora_embedding_A": normal(4, 6), "c.lora_B.weight": normal(8, 4)}, {}, "lora_A and lora_B"),
        ({"c.lora_A.one.weight": normal(4, 6), "c.lora_B.two.weight": normal(8, 4)}, {}, "several adapters"),
    ],
)  # fmt: skip
def test_what_is_no_such_pair_is_refused_by_name(tmp_path, tensors, changes, line):
    with pytest.raises(FormatError, match=line):
        open_adapter(write(tmp_path / "t", tensors, **changes))


@pytest.mark.parametrize("kind", ["dora", "lora_bias", "experts"])
def test_more_than_pairs_is_not_merged(run, tmp_path, kind):
    make, changes = KINDS[kind]
    folders = [write(tmp_path / f"t{i}", make(), **changes) for i in range(2)]
    run("compress", *folders, "-o", tmp_path / "set", "--k", 3)
    code, _, err = run("merge", tmp_path / "set", "t0", "t1", "-o", tmp_path / "out")
    assert code == 2
    assert "leave it out of the merge" in err[0]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_bank_takes_linear_layers_alone(tmp_path, kind):
    make, changes = KINDS[kind]
    with pytest.raises(InputError, match="expected LoRA of linear layers"):
        check_plain(open_adapter(write(tmp_path / "t", make(), **changes)))


def test_one_module_in_two_forms_is_not_shared(run, tmp_path):
    linear = {"c.lora_A.weight": normal(4, 5), "c.lora_B.weight": normal(7, 4)}
    conv = {"c.lora_A.weight": normal(4, 5, 1), "c.lora_B.weight": normal(7, 4, 1)}
    folders = [write(tmp_path / "a", linear), write(tmp_path / "b", conv)]
    code, _, err = run("compress", *folders, "-o", tmp_path / "set")
    assert code == 2
    assert "got conv:5,1, expected linear as in the others" in err[0]
    run("compress", folders[0], "-o", tmp_path / "set")
    code, _, err = run("add", tmp_path / "set", folders[1])
    assert code == 2


def test_the_adapters_name_in_the_keys_is_left_out(tmp_path):
    tensors = {"c.lora_A.ranking.weight": normal(4, 5), "c.lora_B.ranking.weight": normal(7, 4),
               "c.lora_magnitude_vector.ranking": normal(7)}  # fmt: skip
    source = open_adapter(write(tmp_path / "t", tensors, use_dora=True))
    assert (list(source.layers), source.extra_names) == (["c"], (f"{P}c.lora_magnitude_vector",))
