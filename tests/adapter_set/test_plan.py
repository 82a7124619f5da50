"""Plans against the sets that compressing really makes, and the advice for collections of known structure."""

import json

import numpy as np
import pytest
from adapter_makers import write_peft

from share_jax.adapter_set import build
from share_jax.adapter_set.advice import advise, frontier, judge, worth
from share_jax.adapter_set.build import build_state
from share_jax.adapter_set.manifest import Settings
from share_jax.adapter_set.plan import measure_plan, measured_layers
from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.adapter_set.survey import Survey
from share_jax.adapters.shared_starts import Starts
from share_jax.cli.main import main
from share_jax.formats import open_sources

MODULES = tuple(f"model.layers.{i}.self_attn.q_proj" for i in range(3))
D_IN, D_OUT, RANK = 80, 64, 4


def planted(rng, seed, width=8):
    """A collection's span: what its adapters are drawn from."""
    own = np.random.default_rng((7, seed))
    return {m: (own.normal(size=(width, D_IN)), own.normal(size=(D_OUT, width))) for m in MODULES}


def drawn(kind, t):
    """Adapter t of a collection: module -> (A, B) as PEFT stores them."""
    rng = np.random.default_rng((1, t))
    group = t % 2 if kind == "two starts" else 0
    starts, spans = np.random.default_rng((2, group)), planted(rng, group)
    out = {}
    for module, (left, right) in spans.items():
        first = starts.normal(size=(RANK, D_IN))
        if kind == "random":
            a, b = rng.normal(size=(RANK, D_IN)), rng.normal(size=(D_OUT, RANK))
        elif kind == "planted":
            a, b = rng.normal(size=(RANK, len(left))) @ left, right @ rng.normal(size=(len(left), RANK))
        else:  # one start for all, or for each group, and B in the group's span
            a, b = first + 0.02 * rng.normal(size=first.shape), right @ rng.normal(size=(len(left), RANK))
        out[module] = a.astype(np.float32), b.astype(np.float32)
    return out


def collection(root, kind, count):
    return [write_peft(root / f"{kind.split()[0]}{t}", drawn(kind, t)) for t in range(count)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("collections")
    counts = {"random": 16, "planted": 16, "one start": 16, "two starts": 32}
    return {kind: collection(root, kind, count) for kind, count in counts.items()}


@pytest.fixture(scope="module")
def plans(folders):
    return {kind: measure_plan(open_sources(own)) for kind, own in folders.items()}


def row_of(plan, sets, geometry, choice, storage):
    (row,) = [x for x in plan.rows if (x.sets, x.geometry, x.choice, x.storage) == (sets, geometry, choice, storage)]
    return row


@pytest.mark.parametrize(
    ("geometry", "choice", "storage"),
    [
        ("columns", ("k", 8), "f32"), ("columns", ("k", 16), "int8"), ("columns", ("explained_variance", 0.9), "bf16"),
        ("flat", ("k", 4), "f32"), ("flat", ("k", 4), "int8"),
    ],
)  # fmt: skip
def test_a_row_is_what_compressing_gives(folders, plans, tmp_path, capsys, geometry, choice, storage):
    for kind in ("random", "planted", "one start"):
        row = row_of(plans[kind], "one", geometry, choice, storage)
        words = ["--" + choice[0].replace("_", "-"), str(choice[1]), "--geometry", geometry, "--storage", storage]
        assert main(["compress", *map(str, folders[kind]), "-o", str(tmp_path / kind), *words, "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        # a plan adds the squares of the cut's error and of rounding, which in truth are not quite independent
        near = {"rel": 2e-3 if storage == "f32" else 2e-2, "abs": 1e-6}
        assert row.error == pytest.approx(made["relative_error"]["mean"], **near)
        assert row.worst == pytest.approx(made["relative_error"]["max"], **near)
        assert row.k == pytest.approx(made["k"]["mean"])
        assert row.bytes == pytest.approx(made["bytes_out"], rel=0.1)
        assert row.null == pytest.approx(made["null_error"]["mean"], **near)
        if storage == "f32":  # in few bytes a column more or less of an adapter is a large step
            assert row.cut == pytest.approx(made["cut_error"]["mean"], abs=0.1)


def test_a_size_is_measured_alone_as_among_others(folders, plans):
    """Rounded bases, their Gram matrices and the null are made for all sizes at once."""
    alone = measure_plan(open_sources(folders["planted"]), ks=[8])
    for row in alone.rows:
        if row.geometry == "columns":
            other = row_of(plans["planted"], "one", "columns", ("k", 8), row.storage)
            assert (row.bytes, row.k) == (other.bytes, other.k)
            for what in ("error", "worst", "null", "cut"):
                assert getattr(row, what) == pytest.approx(getattr(other, what), rel=1e-9, abs=1e-12)


def test_chance_is_told_from_structure(plans):
    for row in plans["random"].rows:
        if row.geometry == "columns" and row.choice[0] == "k" and row.k <= 32:
            assert row.error == pytest.approx(row.null, rel=0.05)
    exact = row_of(plans["planted"], "one", "columns", ("k", 8), "f32")
    assert exact.error < 1e-5 < 0.5 < exact.null
    assert plans["random"].starts.groups == plans["planted"].starts.groups == ()
    assert plans["one start"].starts.groups == (tuple(range(16)),)
    assert plans["two starts"].starts.groups == (tuple(range(0, 32, 2)), tuple(range(1, 32, 2)))


def test_advice_for_collections_of_known_structure(plans):
    rows = {kind: [row for row in plan.rows if row.storage == "f32"] for kind, plan in plans.items()}
    advice = {kind: advise(rows[kind], plan.bytes_in, 0.05) for kind, plan in plans.items()}
    assert {kind: x.action for kind, x in advice.items()} == {
        "random": "leave", "planted": "compress", "one start": "compress", "two starts": "split",
    }  # fmt: skip
    for kind, found in advice.items():
        if found.row is not None:
            assert found.row.error <= 0.05
            assert worth(found.row, plans[kind].bytes_in)
    best = advice["planted"].row
    assert best.choice in (("k", 8), ("k", 16), ("k", 32))  # 8 are all that there are


def test_split_rows_are_the_sets_of_the_groups(folders, plans, tmp_path, capsys):
    row = row_of(plans["two starts"], "split", "columns", ("k", 4), "f32")
    made = []
    for i in range(2):
        words = ["-o", str(tmp_path / f"out{i}"), "--k", "4", "--json"]
        assert main(["compress", *map(str, folders["two starts"][i::2]), *words]) == 0
        made.append(json.loads(capsys.readouterr().out))
    assert row.error == pytest.approx(np.mean([x["relative_error"]["mean"] for x in made]), rel=1e-4)
    assert row.bytes == pytest.approx(sum(x["bytes_out"] for x in made), rel=0.1)


def test_tasks_without_a_group_are_left_as_they_are(folders):
    mixed = [*folders["one start"][:6], *folders["random"][:3]]
    plan = measure_plan(open_sources(mixed), ks=[4], geometries=("columns",), storages=("f32",))
    split = row_of(plan, "split", "columns", ("k", 4), "f32")
    assert plan.starts.alone == (6, 7, 8)
    alone = 3 * len(MODULES) * RANK * (D_IN + D_OUT) * 4
    only = measure_plan(open_sources(mixed[:6]), ks=[4], geometries=("columns",), storages=("f32",))
    (own,) = only.rows
    assert split.error == pytest.approx(own.error * 6 / 9, rel=1e-6)
    assert split.bytes == pytest.approx(own.bytes + alone, rel=0.05)


def test_a_part_of_the_layers_stands_for_all(tmp_path):
    modules = [f"model.layers.{i}.{p}" for i in range(8) for p in ("q_proj", "v_proj")]
    rng = np.random.default_rng(0)
    spans = {m: (rng.normal(size=(6, 40)), rng.normal(size=(40 if m[-6] == "q" else 24, 6))) for m in modules}
    made = []
    for t in range(6):
        pairs = {m: (rng.normal(size=(3, 6)) @ a, b @ rng.normal(size=(6, 3))) for m, (a, b) in spans.items()}
        made.append(write_peft(tmp_path / f"t{t}", pairs, r=3, target_modules=["q_proj", "v_proj"]))
    sources = open_sources(made)
    total = 6 * 4 * 3 * 8 * (80 + 64)
    weights = measured_layers(sources, total // 4)
    assert sorted(weights) == ["model.layers.0.q_proj", "model.layers.0.v_proj",
                               "model.layers.4.q_proj", "model.layers.4.v_proj"]  # fmt: skip
    assert set(weights.values()) == {4.0}
    assert set(measured_layers(sources, None)) == set(modules)
    part, whole = (measure_plan(sources, ks=[4], storages=("f32",), limit=x) for x in (total // 4, None))
    assert (part.measured, part.layers, whole.measured) == (4, 16, 16)
    for x, y in zip(part.rows, whole.rows, strict=True):
        assert x.bytes == pytest.approx(y.bytes, rel=0.02)
        assert x.error == pytest.approx(y.error, abs=0.1)  # other layers, of other random spans
        assert x.null == pytest.approx(y.null, abs=0.1)


def test_heads_are_counted(tmp_path):
    head = {"base_model.model.score.weight": np.ones((50, 64), np.float32)}
    plain = [write_peft(tmp_path / f"a{t}", drawn("planted", t)) for t in range(3)]
    headed = [write_peft(tmp_path / f"b{t}", drawn("planted", t), extras=head, modules_to_save=["score"])
              for t in range(3)]  # fmt: skip
    found = [measure_plan(open_sources(x), ks=[4], geometries=("columns",), storages=("f32",)) for x in (plain, headed)]
    assert found[1].rows[0].bytes - found[0].rows[0].bytes == 3 * 50 * 64 * 4


@pytest.mark.parametrize("geometry", ["columns", "flat", "auto"])
def test_layer_by_layer_is_the_same_to_the_bit(folders, monkeypatch, geometry):
    """What is read layer by layer for want of memory gives the state of what is read at once."""
    sources = open_sources(folders["planted"][:5])
    settings = Settings(None, "f32", geometry, {"k": 6}, None, None)
    surveys, states = [], []
    for limit in (2**29, 0):
        monkeypatch.setattr(build, "SUM_BYTES", limit)
        monkeypatch.setattr(build, "HELD_BYTES", limit)
        surveys.append(Survey([source.name for source in sources]))
        states.append(build_state(sources, settings, lambda *_: None, surveys[-1]))
    assert states[0].tasks == states[1].tasks
    assert list(states[0].layers) == list(states[1].layers)
    for name, layer in states[0].layers.items():
        for x, y in zip(vars(layer).values(), vars(states[1].layers[name]).values(), strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_allclose(surveys[0].spectra[name], surveys[1].spectra[name], rtol=1e-12)
    assert surveys[0].starts() == surveys[1].starts()


def plain_row(bytes_, error, null, cut, sets="one"):
    return PlanRow(sets, "columns", ("k", 8), 8.0, "f32", bytes_, error, error, null, cut)


def test_advice_weighs_bytes_chance_and_cutting():
    assert advise([plain_row(100, 0.05, 0.9, 0.5)], 1000, 0.1).action == "compress"
    assert "cut alone" in advise([plain_row(100, 0.05, 0.9, 0.04)], 1000, 0.1).reason
    assert "same spectra" in advise([plain_row(100, 0.85, 0.9, 0.95)], 1000, 0.1).reason
    assert advise([plain_row(900, 0.05, 0.9, 0.5)], 1000, 0.1).action == "leave"  # hardly smaller
    near = advise([plain_row(100, 0.2, 0.9, 0.5)], 1000, 0.1)
    assert (near.action, near.row.error) == ("leave", 0.2)
    both = [plain_row(100, 0.05, 0.9, 0.5), plain_row(95, 0.05, 0.9, 0.5, "split")]
    assert advise(both, 1000, 0.1).action == "compress"  # one set is simpler
    assert advise([*both, plain_row(50, 0.05, 0.9, 0.5, "split")], 1000, 0.1).action == "split"


def test_judgement_of_a_set_that_was_made():
    apart, divided = Starts((), (0, 1, 2), ()), Starts(((0, 1),), (2,), (0.9,))
    assert judge(0.05, 0.9, 0.5, 1000, 100, apart).action == "compress"
    assert judge(0.05, 0.9, 0.5, 1000, 100, divided).action == "compress"
    assert judge(0.3, 0.9, 0.5, 1000, 100, divided).action == "split"
    assert judge(0.88, 0.9, 0.95, 1000, 100, divided).action == "split"
    assert judge(0.88, 0.9, 0.95, 1000, 100, apart).action == "leave"
    assert judge(0.3, 0.9, 0.2, 1000, 100, apart).action == "leave"
    assert judge(0.05, 0.9, 0.5, 1000, 1001, apart).action == "leave"
    assert judge(0.0, 0.0, 0.0, 1000, 900, Starts((), (0,), ())).action == "nothing"


def test_the_frontier_holds_what_nothing_beats():
    rows = [plain_row(100, 0.5, 1, 1), plain_row(90, 0.4, 1, 1), plain_row(120, 0.4, 1, 1), plain_row(200, 0.1, 1, 1)]
    assert frontier(rows) == [rows[1], rows[3]]
