"""The README's snippets run as they stand, and its commands exist."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from pretrained_folders import pretrained_folder

import share_jax
from share_jax.cli.main import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def snippet(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


@pytest.mark.parametrize("name", ["own module", "unmodified model"])
def test_snippets_run_in_15_lines_and_learn_both_tasks(name: str) -> None:
    source = snippet(name)
    assert len([text for text in source.splitlines() if text.strip()]) <= 15
    scope: dict = {}
    exec(compile(source, name, "exec"), scope)
    learner, bank, x = scope["learner"], scope["bank"], scope["x"]
    for task, column in (("first", 0), ("second", 1)):
        predicted = np.asarray(learner.predict(bank, task, x)).argmax(-1)
        assert np.mean(predicted == np.asarray(x[:, column] > 0)) > 0.9
    assert np.isfinite(np.asarray(scope["logits"])).all()
    assert scope["logits"].shape == (30, 2)


def test_the_snippet_of_share_learns_three_tasks_within_the_bound_in_10_lines() -> None:
    scope: dict = {}
    exec(snippet("unmodified model"), scope)
    source = snippet("share")
    assert len([text for text in source.splitlines() if text.strip()]) <= 12
    exec(compile(source, "share", "exec"), scope)
    learner, bank, x = scope["learner"], scope["bank"], scope["x"]
    for task, column in (("first", 0), ("second", 1), ("third", 2)):
        predicted = np.asarray(learner.predict(bank, task, x)).argmax(-1)
        assert np.mean(predicted == np.asarray(x[:, column] > 0)) > 0.9
        assert bank.report()[task].error_bound <= 0.05
    assert np.array_equal(scope["logits"], learner.predict(bank, "first", x))


@pytest.mark.parametrize("kind", ["decoder", "bert", "roberta", "vit"])
def test_a_folder_becomes_an_adapted_model_in_five_lines(kind: str, tmp_path: Path) -> None:
    source = snippet(f"pretrained {kind}")
    assert len([text for text in source.splitlines() if text.strip()]) == 5
    scope = {"share_jax": share_jax, "jax": jax, "FOLDER": pretrained_folder(kind, tmp_path)}
    exec(compile(source, kind, "exec"), scope)
    adapted, params = scope["adapted"], scope["params"]
    trees = adapted.init(jax.random.key(1), params, num_tasks=2)
    inputs = (scope["images"],) if kind == "vit" else (scope["ids"], scope["mask"])
    variables = {"params": params, **trees}
    out = jax.jit(lambda *args: adapted.apply(variables, *args, task_id=jax.numpy.arange(2)))(*inputs)
    assert np.isfinite(np.asarray(out)).all()
    assert out.shape == ((2, inputs[0].shape[1], 64) if kind == "decoder" else (2, 3))


def test_the_commands_of_a_language_model_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On a tiny model, with few updates, and answers as short as it takes them."""
    found = re.search(r"<!-- language bank -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found
    lines = found[1].splitlines()
    assert len(lines) < 20
    monkeypatch.chdir(tmp_path)
    pretrained_folder("decoder", tmp_path).rename("SmolLM2-135M-Instruct.gguf")
    example = json.dumps({"prompt": "the cat sat", "completion": "SELECT name"})
    for name in ("sql", "sql-test", "python", "support"):
        Path(f"{name}.jsonl").write_text(f"{example}\n{example}\n")
    asked = [json.dumps({"prompt": "the dog", "task": task}) for task in ("sql", "support", "python")]
    Path("prompts.jsonl").write_text("\n".join(asked))
    small = {"learn": ["--epochs", "2", "--batch-size", "2"], "generate": ["--max-tokens", "4"]}
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "share-jax"
        assert main([*words[1:], *small.get(words[1], [])]) == 0, capsys.readouterr().err
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [answer["task"] for answer in answers] == ["sql", "support", "python"]
    assert all("completion" in answer for answer in answers)
    assert {path.name for path in Path("adapters").iterdir()} == {"sql", "python", "support"}
    assert "all 2 kept every bit" in capsys.readouterr().out


def test_a_bank_is_saved_and_loaded_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(snippet("unmodified model"), scope)
    learner, before, x = scope["learner"], scope["bank"], scope["x"]
    exec(snippet("saving"), scope)
    assert scope["bank"] is not before
    for name in ("first", "second"):
        logits = [np.asarray(learner.predict(bank, name, x)) for bank in (before, scope["bank"])]
        np.testing.assert_array_equal(*logits)


def test_what_is_learnt_leaves_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(snippet("unmodified model"), scope)
    source = snippet("doors")
    assert len([text for text in source.splitlines() if text.strip()]) <= 12
    exec(compile(source, "doors", "exec"), scope)
    learner, bank, x = scope["learner"], scope["bank"], scope["x"]
    for name, other, within in (("second", scope["served"], 1e-6), ("first", scope["again"], 1e-5)):
        logits = [np.asarray(learner.predict(each, name, x)) for each in (bank, other)]
        np.testing.assert_allclose(*logits, rtol=0, atol=within)
    assert max(report.error_bound for report in scope["reports"].values()) < 1e-5


def test_the_first_task_keeps_its_bits_as_the_comment_says() -> None:
    scope: dict = {}
    exec(snippet("own module"), scope)
    learner, bank, x = scope["learner"], scope["bank"], scope["x"]
    alone = learner.learn(
        learner.start(scope["variables"]), "first", [{"inputs": x, "labels": (x[:, 0] > 0).astype(int)}] * 50
    )
    np.testing.assert_array_equal(
        np.asarray(jax.device_get(learner.predict(alone, "first", x))), np.asarray(scope["logits"])
    )
    assert bank.names == ("first", "second")


def test_a_stream_of_ones_own_takes_20_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.streams import records

    source = snippet("own stream")
    assert len([text for text in source.splitlines() if text.strip()]) <= 20
    rows = [{"image": np.full((4, 4, 3), i, np.uint8), "label": i % 100} for i in range(200)]
    builder = SimpleNamespace(info=SimpleNamespace(name="cifar100", features={"image": None, "label": None}))
    monkeypatch.setattr(records, "tfds_builder", lambda dataset, data_dir: builder)
    monkeypatch.setattr(records, "records", lambda builder, split: rows)
    scope: dict = {"bank": (), "learner": SimpleNamespace(learn=lambda bank, name, batches: (*bank, (name, *batches)))}
    exec(compile(source, "own stream", "exec"), scope)
    learnt = {name: batches for name, *batches in scope["bank"]}
    assert len(learnt) == 10
    for index, batches in enumerate(learnt.values()):
        assert len(batches) == 100
        assert all(batch["inputs"]["images"].shape == (32, 4, 4, 3) for batch in batches)
        seen = np.concatenate([batch["inputs"]["images"][batch["weights"] > 0, 0, 0, 0] for batch in batches])
        assert set(np.round(seen * 255).astype(int) % 100) == set(range(10 * index, 10 * index + 10))


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_no_placeholder_is_left() -> None:
    assert "@@" not in README
