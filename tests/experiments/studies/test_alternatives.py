"""What the study of alternatives compares: forms that are one function, a check that tells when they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench.decoders import decoder
from experiments.bench.record import read
from experiments.bench.subjects import torch_weights, vit
from experiments.studies.alternatives.__main__ import main
from experiments.studies.alternatives.decoder_forms import LENGTHS, packed, packed_rows, shapes_of
from experiments.studies.alternatives.equal import hold_equal
from experiments.studies.alternatives.few_rows import as_codes, chain, out_of_codes, row_by_row, whole
from experiments.studies.alternatives.layer_forms import (
    WAYS,
    saved,
    separately,
    slopes_separately,
    slopes_together,
    together,
)
from experiments.studies.alternatives.models import TwoProducts, keeping, resident
from experiments.studies.alternatives.scanned import stacked
from share_jax.errors import ShareError
from share_jax.parameterizations.share import Share


def normal(*shape):
    return jnp.asarray(np.random.default_rng(3).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_a_mixed_batch_takes_each_example_to_its_own_task(name):
    h, stack, ids = normal(5, 3, 2), normal(4, 2, 6), jnp.array([3, 0, 3, 1, 0])
    want = np.stack([np.asarray(h[b]) @ np.asarray(stack[task]) for b, task in enumerate([3, 0, 3, 1, 0])])
    np.testing.assert_allclose(jax.jit(WAYS[name])(h, stack, ids), want, rtol=1e-5, atol=1e-5)


def test_one_product_with_all_columns_is_three():
    x, kernels, downs, ups = (
        normal(4, 3, 6),
        [normal(6, 6)] * 3,
        [normal(6, 2) + n for n in range(3)],
        [normal(2, 6)] * 3,
    )
    want = [np.asarray(x @ kernel + x @ a @ b) for kernel, a, b in zip(kernels, downs, ups, strict=True)]
    for form in (separately, together):
        for got, plain in zip(form(x, kernels, downs, ups), want, strict=True):
            np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-4)
    above = [normal(4, 3, 6) - n for n in range(3)]
    want = [
        sum((np.asarray(x[b]) @ np.asarray(a)).T @ np.asarray(dy[b]) for b in range(4))
        for a, dy in zip(downs, above, strict=True)
    ]
    for form in (slopes_separately, slopes_together):
        for got, plain in zip(form(x, downs, above), want, strict=True):
            np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-4)


def test_products_of_few_rows_are_one_function():
    x, kernels = normal(4, 6), [normal(6, 8), normal(8, 6)]
    np.testing.assert_allclose(row_by_row(x, kernels[0]), np.asarray(x) @ np.asarray(kernels[0]), rtol=1e-5, atol=1e-5)
    codes = [as_codes(kernel) for kernel in kernels]
    assert all(own.dtype == jnp.int8 and np.abs(own).max() == 127 for own, _ in codes)
    meant = [np.asarray(own, np.float32) * np.asarray(scale) for own, scale in codes]
    for kernel, close in zip(kernels, meant, strict=True):
        assert np.abs(kernel - close).max() <= np.abs(kernel).max() / 127 / 2 * 1.001
    np.testing.assert_allclose(chain(out_of_codes)(x, codes), chain(whole)(x, meant), rtol=1e-4, atol=1e-4)


def test_two_products_are_the_core():
    ours, other = Share(4, 2), TwoProducts(4, 2)
    shared = ours.init_shared(jax.random.key(0), 6, 5)
    slot, h = {"coeff_a": normal(3, 4, 2), "coeff_b": normal(3, 4, 2) + 1}, normal(3, 7, 4)
    np.testing.assert_allclose(other.up(shared, slot, h), ours.up(shared, slot, h), rtol=1e-5, atol=1e-5)


def test_forms_that_differ_are_refused():
    tree = {"a": jnp.ones(3), "b": jnp.full(2, 100.0)}
    hold_equal("form", {"a": jnp.ones(3) + 1e-6, "b": jnp.full(2, 100.001)}, tree)
    for other in ({**tree, "a": jnp.ones(3).at[1].set(1.001)}, {**tree, "a": jnp.ones(2)}, {"a": tree["a"]}):
        with pytest.raises(ShareError, match="form"):
            hold_equal("form", other, tree)
    with pytest.raises(ShareError, match=r"form\['b'\]"):
        hold_equal("form", {**tree, "b": jnp.array([100.0, jnp.nan])}, tree)


def test_layers_are_stacked_in_the_order_of_their_numbers():
    tree = {"encoder": {f"layer_{n}": {"up": {"kernel": jnp.full((2,), n)}} for n in range(11)}, "head": jnp.ones(1)}
    found = stacked(tree, 11)
    assert found["encoder"]["scanned"]["layer"]["up"]["kernel"][:, 0].tolist() == list(range(11))
    assert set(found["encoder"]) == {"scanned"}
    assert set(found) == {"encoder", "head"}


def test_every_text_is_in_one_batch_or_one_row_of_any_way():
    for buckets in ((68,), (48, 64, 68)):
        assert sum(texts * count for (texts, _), count in shapes_of(LENGTHS, buckets).items()) == len(LENGTHS)
    rows = packed_rows(LENGTHS, 272)
    assert sorted(text for row in rows for text in row) == list(range(len(LENGTHS)))
    assert max(sum(LENGTHS[text] for text in row) for row in rows) <= 272


def test_a_packed_row_has_its_texts_as_documents_and_learns_the_last_half_of_each():
    inputs = {name: np.asarray(array) for name, array in packed(decoder("tiny", 1, 8), [4, 6, 3], 8).inputs.items()}
    assert inputs["attention_mask"].tolist() == [[1] * 6 + [0] * 2, [1] * 4 + [2] * 3 + [0]]
    learnt = [own[wanted >= 0].tolist() for own, wanted in zip(inputs["columns"], inputs["targets"], strict=True)]
    assert learnt == [[3, 4, 5], [2, 3, 6]]


def test_what_is_saved_is_of_the_whole_and_negative_where_it_costs():
    ours, other, whole = {0: 2.0, 1: 4.0}, {0: 1.0, 1: 2.0}, {0: 10.0, 1: 20.0}
    assert saved(ours, other, whole, 3) == pytest.approx(0.3)
    assert saved(other, ours, whole, 3) == pytest.approx(-0.3)


def test_a_donated_argument_is_counted_once():
    x = jnp.zeros(1000, jnp.float32)
    sizes = [
        resident(jax.jit(lambda x: x + 1, donate_argnums=donate).lower(x).compile().memory_analysis())
        for donate in ((), (0,))
    ]
    assert sizes == [8000, 4000]


def test_programs_are_kept_within_the_context_and_not_after_it(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    with keeping(tmp_path / "programs"):
        jax.jit(lambda x: 3 * x + 1)(jnp.ones(7))
    assert list((tmp_path / "programs").iterdir())
    assert jax.config.jax_compilation_cache_dir == before


def test_the_twin_of_the_vision_transformer_has_torchs_shapes():
    """A batch axis in front of the class token and the positions, kernels (out, in)."""
    subject = vit(tiny=True)
    weights = torch_weights(subject.params, subject.twin)
    assert weights["body.embeddings.cls_token"].shape == (1, 1, 8)
    assert weights["body.embeddings.position_embeddings"].shape == (1, 5, 8)
    np.testing.assert_array_equal(
        weights["body.embeddings.position_embeddings"][0], subject.params["encoder"]["position"]
    )
    assert weights["body.embeddings.patch_embeddings.projection.weight"].shape == (8, 3, 4, 4)
    assert weights["body.layers.1.mlp.fc1.weight"].shape == (16, 8)


def measured(folder, *more):
    """The document of a tiny run of one round, which leaves a plot and a page beside it."""
    path, page = folder / "alternatives.json", folder / "ALTERNATIVES.md"
    words = ["--tiny", "--rounds", "1", "--quiet", "--json", str(path), "--workdir", str(folder / "work"), *more]
    assert main([*words, "--markdown", str(page)]) == 0
    assert path.with_suffix(".png").exists()
    before = page.read_text()
    assert main(["--rows", str(path), "--markdown", str(page)]) == 0
    assert page.read_text() == before
    return read(path, ("alternatives",)), before


@pytest.mark.slow
def test_two_parts_of_the_study_run_from_end_to_end(tmp_path):
    """The whole study is among the slow tests; no number here says anything, but each is there and finite."""
    found, page = measured(tmp_path, "--only", "mixed batch|length buckets")
    ratios = found["ratios"]
    assert {"mixed batch, 4 stored: 4 tasks, one-hot / gathered", "length buckets: mean step / longest"} <= set(ratios)
    assert all(np.isfinite(value) for value in ratios.values())
    assert all(f"| {name} | {value:.3f} |" in page for name, value in ratios.items())


@pytest.mark.slow
def test_the_whole_study_runs_from_end_to_end(tmp_path):
    found, _ = measured(tmp_path)
    assert {
        "4 tasks, one-hot",
        "4 tasks, sorted groups",
        "rank 8, outer products",
        "step, two products",
        "gradients, one task, one product",
        "tracing and compiling, scanned",
        "later task, kept",
        "compiling out of a filled one",
        "step, 8 tokens",
        "8, row by row",
        "1, int8 codes",
    } <= {row["case"].rpartition(": ")[2] for row in found["results"]}
    assert any("saved of the whole step" in name for name in found["ratios"])
    assert all(np.isfinite(value) for value in found["ratios"].values())
    assert {row["repetitions"] for row in found["results"]} == {1}
    assert (found["tiny"], found["rounds"]) == (True, 1)


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(["--rounds", "0"]) == 2
    (tmp_path / "x.json").write_text('{"suite": "roofline"}')
    assert main(["--rows", str(tmp_path / "x.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(text.startswith("error: ") for text in lines)
