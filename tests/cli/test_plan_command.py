"""`plan`, and what `compress` and `similarity` say of starts and chance."""

import shlex

import numpy as np
import pytest
from adapter_makers import MODULES, factors, write_adapters, write_lorashare, write_peft

from share_jax.adapter_set.plan_rows import PlanRow
from share_jax.cli.error_plot import compared
from share_jax.cli.main import main


@pytest.fixture
def mixed(tmp_path):
    """Four adapters of one start, with B in one span, and two random ones."""
    folders = []
    for t in range(6):
        rng, common = np.random.default_rng(t), np.random.default_rng(99)
        pairs = {}
        for module in MODULES:
            a, span = common.normal(size=(4, 60)), common.normal(size=(50, 5))
            if t < 4:
                a, b = a + 0.01 * rng.normal(size=a.shape), span @ rng.normal(size=(5, 4))
            else:
                a, b = rng.normal(size=(4, 60)), rng.normal(size=(50, 4))
            pairs[module] = a, b
        folders.append(write_peft(tmp_path / "in" / f"task {t}", pairs))
    return folders


def test_plan_shows_rows_and_a_command_that_works(run, adapters, tmp_path):
    code, data, err = run("plan", *adapters, "--max-error", 0.01)
    assert (code, err) == (0, [])
    assert data["tasks"] == [a.name for a in adapters]
    assert data["bytes_in"] == sum(f.stat().st_size for a in adapters for f in a.iterdir())
    assert {(row["geometry"], row["storage"]) for row in data["rows"]} == {
        (geometry, storage) for geometry in ("columns", "flat") for storage in ("f32", "bf16", "int8")
    }
    assert {row["sets"] for row in data["rows"]} == {"one"}
    for row in data["rows"]:
        assert row["ratio"] == pytest.approx(data["bytes_in"] / row["bytes"])
        assert row["error"] <= row["worst"]
        assert 0 <= row["null"] <= 1.01
    assert (data["layers"], data["layers_measured"]) == (4, 4)
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]  # nothing was written
    assert data["advice"]["action"] == "compress"
    words = shlex.split(data["advice"]["commands"][0])
    words[words.index("OUT")] = str(tmp_path / "out")
    code, made, _ = run(*words[1:])
    assert code == 0
    assert made["relative_error"]["mean"] < 0.01


def test_plan_takes_sizes_and_prints_a_table(run, adapters):
    words = ("--k", 2, 6, "--geometry", "columns", "--storage", "f32")
    code, data, _ = run("plan", *adapters, *words)
    assert code == 0
    assert [row["choice"] for row in data["rows"]] == [{"k": 2}, {"k": 6}]
    code, text, _ = run("plan", *adapters, *words, json_out=False)
    assert code == 0
    for part in ("at random", "cut alone", "k 6", "Advice", "an A of its own", "geometry", "size", "smaller", "worst"):
        assert part in text
    assert "sets" not in text  # one set is all that there is
    (advised,) = [line for line in text.splitlines() if line.endswith("<- advised")]
    assert "k 6" in advised


def test_plan_splits_by_start(run, mixed, tmp_path):
    code, data, _ = run("plan", *mixed, "--k", 5, "--geometry", "columns", "--storage", "f32")
    assert code == 0
    assert data["starts"]["groups"][0]["tasks"] == [f"task {t}" for t in range(4)]
    assert data["starts"]["alone"] == ["task 4", "task 5"]
    text = run("plan", *mixed, "--k", 5, "--geometry", "columns", "--storage", "f32", json_out=False)[1]
    assert "sets: one for all adapters, or split" in text
    one, split = data["rows"]
    assert (one["sets"], split["sets"]) == ("one", "split")
    assert split["error"] < 0.02 < 0.3 < one["error"]
    assert data["advice"]["action"] == "split"
    words = shlex.split(data["advice"]["commands"][0])
    assert words[2:6] == [str(folder) for folder in mixed[:4]]
    words[words.index("OUT-1")] = str(tmp_path / "out")
    assert run(*words[1:])[1]["relative_error"]["mean"] < 0.02


@pytest.mark.parametrize("command", ["plan", "similarity"])
def test_given_names_go_into_the_commands(run, mixed, tmp_path, command):
    size = ("--k", 5, "--geometry", "columns", "--storage", "f32") if command == "plan" else ()
    code, data, _ = run(command, *mixed, *size, "--name", *"abcdef")
    assert code == 0
    assert data["starts"]["groups"][0]["tasks"] == list("abcd")
    commands = data["advice"]["commands"] if command == "plan" else data["commands"]
    words = shlex.split(commands[0])
    assert words[-5:] == ["--name", *"abcd"]
    words[words.index("OUT-1")] = str(tmp_path / "out")
    assert list(run(*words[1:], *(() if size else ("--k", 5)))[1]["per_task"]) == list("abcd")


def test_what_is_drawn_beside_the_errors_is_of_the_advised_way():
    sizes = (("columns", "f32", 400, 0.1), ("columns", "int8", 100, 0.2), ("columns", "int8", 200, 0.15),
             ("flat", "int8", 90, 0.5))  # fmt: skip
    rows = [PlanRow("one", g, ("k", 8), 8.0, s, size, error, error, 0.9, 0.8) for g, s, size, error in sizes]
    assert compared(rows, rows[0]) is rows[0]
    assert compared(rows, None) in rows[1:3]


@pytest.mark.parametrize("kind", ["split", "nothing advised"])
def test_plan_draws_whatever_is_advised(run, mixed, tmp_path, kind):
    words = ("--k", 5, "--geometry", "columns", "--storage", "f32", "--plot", tmp_path / "plan.png")
    code, data, _ = run("plan", *(mixed if kind == "split" else mixed[4:]), *words)
    assert (code, data["advice"]["action"]) == (0, "split" if kind == "split" else "leave")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_plan_draws(run, adapters, tmp_path):
    words = ("--k", 4, "--storage", "f32", "--plot", tmp_path / "plan.png")
    assert run("plan", *adapters, *words)[0] == 0
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run("plan", *adapters, "--plot", tmp_path / "nowhere" / "plan.png")
    assert (code, len(err)) == (2, 1)


def test_plan_of_one_adapter_and_of_a_folder_of_many(run, tmp_path, adapters):
    code, data, _ = run("plan", adapters[0], "--storage", "f32")
    assert (code, data["advice"]["commands"]) == (0, [])
    assert "One adapter has nothing to share" in data["advice"]["reason"]
    code, data, _ = run("plan", write_lorashare(tmp_path / "many"), "--storage", "f32")
    assert (code, len(data["tasks"])) == (0, 2)


def test_plan_refuses_what_compress_refuses(run, tmp_path, adapters):
    other = write_peft(tmp_path / "other", factors(0, d_in=30))
    code, _, err = run("plan", *adapters, other)
    assert (code, len(err)) == (2, 1)
    assert "expected" in err[0]
    assert run("plan", tmp_path / "nothing")[0] == 2


def test_compress_compares_every_error(run, mixed, tmp_path):
    code, data, _ = run("compress", *mixed, "-o", tmp_path / "out", "--k", 5)
    assert code == 0
    for name, task in data["per_task"].items():
        assert 0 < task["null_error"] <= 1
        assert 0 <= task["cut_error"] <= 1
        if name in ("task 4", "task 5"):
            assert task["relative_error"] > 0.5 * task["null_error"]
    assert data["advice"]["action"] == "split"
    assert shlex.split(data["advice"]["commands"][0])[2:6] == [str(folder) for folder in mixed[:4]]
    assert f"{tmp_path / 'out'}-1" in data["advice"]["commands"][0]


@pytest.mark.parametrize("words", [("--geometry", "flat"), ("--geometry", "auto"), ("--storage", "int8"),
                                   ("--pseudo-rank", "2")])  # fmt: skip
def test_compress_compares_in_every_form(run, tmp_path, words):
    folders = write_adapters(tmp_path / "in", 6, noise=0.1)
    code, data, _ = run("compress", *folders, "-o", tmp_path / "out", "--k", 3, *words)
    assert code == 0
    for task in data["per_task"].values():
        assert task["relative_error"] <= task["null_error"] * 1.05 + 1e-6  # they share what chance does not
    if "--pseudo-rank" in words:
        assert data["starts"]["groups"] == []
        full = run("compress", *folders, "-o", tmp_path / "all", "--k", 3)[1]
        assert data["starts"] == full["starts"]  # judged by A as it was


def test_compress_prints_the_comparison(run, adapters, tmp_path):
    code, text, _ = run("compress", *adapters, "-o", tmp_path / "out", "--k", 6, json_out=False)
    assert code == 0
    for part in ("at random", "cut alone", "random adapters of the same spectra", "Advice (compress)"):
        assert part in text


def test_similarity_shows_starts(run, mixed, made):
    code, data, _ = run("similarity", *mixed)
    assert code == 0
    assert [group["tasks"] for group in data["starts"]["groups"]] == [[f"task {t}" for t in range(4)]]
    assert len(data["commands"]) == 1
    code, text, _ = run("similarity", *mixed, json_out=False)
    assert "began with the same A: 4" in text
    assert "share-jax compress" in text
    assert run("similarity", made[0])[1]["starts"] is None  # a set has no A as it was


def test_plan_without_matplotlib_is_one_line(adapters, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["plan", *map(str, adapters), "--plot", str(tmp_path / "x.png")]) == 2
    assert "--plot" in capsys.readouterr().err
