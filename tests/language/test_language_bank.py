"""A language model's bank, as its commands use it: learnt, resumed, scored, written with, exported and imported."""

import json
import shutil
from pathlib import Path

import numpy as np
import optax
import pytest
from pretrained_folders import pretrained_folder
from safetensors.numpy import load_file
from small_bank import said, write

from share_jax import language
from share_jax.bank.router import remove_task
from share_jax.bank.slots import read_slot
from share_jax.checkpoint.checkpoint import load_router, save_router
from share_jax.checkpoint.saved_bank import held_checkpoint
from share_jax.cli.main import main
from share_jax.text.examples import Example, read_examples
from share_jax.trees import flat

ASKED = ["the cat sat", "a dog sat", "the dog sat", "a cat sat", "on a cat", "on the dog"]
ANSWERS = {"sql": "SELECT name", "mongo": "db . shops . find", "words": "on the cat"}
SIZES = ("--first-layer", "1", "--rank", "2", "--epochs", "2", "--batch-size", "2", "--max-length", "32")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, and a file of examples for each task."""
    folder = tmp_path_factory.mktemp("language")
    pretrained_folder("decoder", folder)
    for task, answer in ANSWERS.items():
        lines = [{"prompt": f"{asked} {task} :", "completion": answer} for asked in ASKED]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def learn(work: Path, bank: Path, task: str, *more: str) -> int:
    data = ("--data", str(work / f"{task}.jsonl"), "--eval", str(work / f"{task}.jsonl"))
    first = (
        () if (bank / "language_model.json").exists() else ("--model", str(work / "decoder"), *SIZES[:4], *SIZES[8:])
    )
    return main(["learn", str(bank), "--task", task, *data, *first, *SIZES[4:8], *more])


@pytest.fixture(scope="module")
def bank(work: Path) -> Path:
    """Two learnt tasks."""
    folder = work / "bank"
    for task in ("sql", "mongo"):
        assert learn(work, folder, task) == 0
    return folder


def out_of(capsys: pytest.CaptureFixture, *words: object) -> dict:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_task_more_changes_no_bit_of_the_older_ones(
    work: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(bank, tmp_path / "bank")
    capsys.readouterr()
    assert learn(work, tmp_path / "bank", "words", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tasks"] == ["sql", "mongo", "words"]
    assert told["older_tasks_unchanged"] == {"sql": True, "mongo": True}
    assert told["updates"] == 6
    before, after = (language.open_language_bank(folder).bank for folder in (bank, tmp_path / "bank"))
    for place in range(2):
        for path, leaf in flat(read_slot(before.tasks, place)).items():
            np.testing.assert_array_equal(leaf, flat(read_slot(after.tasks, place))[path])
    assert out_of(capsys, "tasks", tmp_path / "bank")["tasks"]["words"]["examples"] == 6


def test_a_broken_off_training_ends_with_the_same_bits(work: Path, bank: Path, tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    class AfterThree:
        count = 0

        def skip(self, steps: int, /) -> None:
            self.skipped = steps

        def update(self, steps: int, loss: object, /) -> None:
            self.count += steps
            if self.count == 4:
                raise Stop

        def saving(self) -> None:
            pass

    examples = read_examples(work / "sql.jsonl")
    settings = language.LanguageSettings(str(work / "decoder"), rank=2, first_layer=1, max_length=32)
    training = language.Training(epochs=2, batch_size=2, save_every=3)
    opened = language.open_language_bank(tmp_path / "bank", settings=settings)
    with pytest.raises(Stop):
        language.learn(opened, "sql", examples, training, progress=AfterThree())
    with pytest.raises(Exception, match="examples of the batches"):
        language.learn(language.open_language_bank(tmp_path / "bank"), "sql", examples[:4], training)
    again = AfterThree()
    done = language.learn(language.open_language_bank(tmp_path / "bank"), "sql", examples, training, progress=again)
    assert again.skipped == 3
    whole = language.open_language_bank(bank).bank
    wanted, found = (flat(read_slot(each.tasks, 0)) for each in (whole, done.opened.bank))
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(leaf, found[path])


def test_prompts_of_several_tasks_get_what_each_gets_alone(
    work: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = [{"prompt": f"{asked} {task} :", "task": task} for asked in ASKED[:2] for task in ("sql", "mongo")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out.jsonl"
    assert (
        main(["generate", str(bank), "--file", str(tmp_path / "prompts.jsonl"), "-o", str(out), "--max-tokens", "5"])
        == 0
    )
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{key: line[key] for key in ("prompt", "task")} for line in made] == lines
    capsys.readouterr()
    for line in made[:2]:
        words = ["--task", line["task"], "--prompt", line["prompt"], "--max-tokens", "5"]
        assert main(["generate", str(bank), *words]) == 0
        assert capsys.readouterr().out == line["completion"] + "\n"


def test_the_router_chooses_the_task_of_prompts_that_name_none(
    work: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = [{"prompt": f"{asked} {task} :"} for asked in ASKED[:3] for task in ("sql", "mongo")]
    lines[0]["task"] = "mongo"  # what a line says holds
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out.jsonl"
    words = ["--max-tokens", "2"]
    assert (
        main(["generate", str(bank), "--route", "--file", str(tmp_path / "prompts.jsonl"), "-o", str(out), *words]) == 0
    )
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["task"] for line in made] == ["mongo", "mongo", *["sql", "mongo"] * 2]
    told = out_of(capsys, "generate", bank, "--route", "--prompt", lines[2]["prompt"], *words)
    assert told["completion"] == made[2]["completion"]
    assert told["task"] == "sql"
    assert main(["generate", str(bank), "--route", "--prompt", lines[3]["prompt"], *words]) == 0
    assert "task: mongo" in capsys.readouterr().err


def test_a_bank_that_does_not_know_its_prompts_says_so_once(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(bank, tmp_path / "bank")
    opened = language.open_language_bank(tmp_path / "bank")
    with held_checkpoint(opened.folder, opened.learner(optax.sgd(0.0)), opened.bank) as store:
        save_router(store, remove_task(load_router(store), "sql"))
    assert main(["generate", str(tmp_path / "bank"), "--route", "--prompt", "a cat"]) == 2
    told = capsys.readouterr().err
    assert "no prompts of sql" in told
    assert "name the task of each prompt" in told
    assert len(told.strip().splitlines()) == 1


def test_scores_are_those_that_learning_told(work: Path, bank: Path, capsys: pytest.CaptureFixture) -> None:
    told = out_of(capsys, "tasks", bank)["tasks"]["mongo"]["scores"]
    found = out_of(capsys, "evaluate", bank, "--task", "mongo", "--data", work / "mongo.jsonl")["tasks"]["mongo"]
    assert found["exact_match"] == told["exact_match"]
    assert found["bits_per_byte"] == pytest.approx(told["bits_per_byte"], rel=1e-5)


def test_the_likeliest_of_the_options_is_that_of_their_nats(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options, opened = ["SELECT name", "on the cat", "db . shops . find", "the"], language.open_language_bank(bank)
    asked = [Example(f"{prompt} :", options[number % 4]) for number, prompt in enumerate(ASKED)]

    def nats(prompt: str, option: str) -> float:
        return language.evaluate(opened, "sql", [Example(prompt, option)]).bits_per_byte * len(option)

    likeliest = [min(options, key=lambda option, each=each: nats(each.prompt, option)) for each in asked]
    right = np.mean([each.completion == best for each, best in zip(asked, likeliest, strict=True)])
    for given in ((), options):
        assert language.evaluate(opened, "sql", asked, 5, options=given).option_accuracy == right
    write(tmp_path / "asked.jsonl", *({"prompt": each.prompt, "completion": each.completion} for each in asked))
    words = ("evaluate", bank, "--data", tmp_path / "asked.jsonl", "--task", "sql", "--options")
    assert out_of(capsys, *words)["tasks"]["sql"]["option_accuracy"] == right
    for wrong, line in ((["the"], "line 1: got 'SELECT name', expected one of the options"), (["a", "a"], "options")):
        code, error = said(capsys, *words, *wrong)
        assert (code, line in error) == (2, True)
    write(tmp_path / "asked.jsonl", {"text": "the cat"})
    code, error = said(capsys, *words)
    assert (code, "line 1: got no prompt with a completion" in error) == (2, True)


def test_adapters_are_merged_into_one_subspace(
    work: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out_of(capsys, "export", bank, "--all", "-o", tmp_path / "peft")
    folders = [tmp_path / "peft" / name for name in ("sql", "mongo")]
    new = ("--model", work / "decoder", "--method", "share", *SIZES[:4], *SIZES[8:])
    told = out_of(capsys, "import", tmp_path / "wide", *folders, *new, "--num-basis", "6")
    assert told["new"] == ["sql", "mongo"]
    assert max(told["error_bounds"].values()) < 1e-4  # both fit
    data = ("--data", work / "sql.jsonl", "--task", "sql")
    old, back = (out_of(capsys, "evaluate", each, *data)["tasks"]["sql"] for each in (bank, tmp_path / "wide"))
    assert back["bits_per_byte"] == pytest.approx(old["bits_per_byte"], rel=1e-4)
    told = out_of(capsys, "import", tmp_path / "narrow", *folders, *new, "--num-basis", "2")
    assert told["error_bounds"]["mongo"] > 0.01
    assert {
        name: each["error_bound"] for name, each in out_of(capsys, "tasks", tmp_path / "narrow")["tasks"].items()
    } == pytest.approx(told["error_bounds"])
    code, error = said(capsys, "import", tmp_path / "thin", *folders, *new[:4], *SIZES[:2], "--rank", "1")
    assert (code, "got 2, expected at most the bank's 1; make a bank with --rank 2" in error) == (2, True)


def test_tasks_leave_as_peft_folders_and_come_back(
    work: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out_of(capsys, "export", bank, "--all", "-o", tmp_path / "peft")
    out_of(capsys, "export", bank, "mongo", "-o", tmp_path / "one")
    names = {path.name for path in (tmp_path / "peft" / "mongo").iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}
    assert (tmp_path / "one" / "adapter_config.json").exists()
    other = tmp_path / "other"
    told = out_of(
        capsys,
        "import",
        other,
        tmp_path / "peft" / "sql",
        tmp_path / "peft" / "mongo",
        "--model",
        work / "decoder",
        "--method",
        "separate",
        *SIZES[:4],
        *SIZES[8:],
    )
    assert told["new"] == ["sql", "mongo"]
    data = ("--data", work / "sql.jsonl", "--task", "sql")
    old, new = (out_of(capsys, "evaluate", folder, *data)["tasks"]["sql"] for folder in (bank, other))
    assert new["bits_per_byte"] == pytest.approx(old["bits_per_byte"], rel=1e-5)


def test_a_bank_without_a_task_is_made_of_the_others(
    work: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """They keep their bits."""
    out_of(capsys, "export", bank, "mongo", "-o", tmp_path / "mongo")
    out_of(capsys, "import", tmp_path / "new", tmp_path / "mongo", "--model", work / "decoder", *SIZES[:4], *SIZES[8:])
    old, new = (language.open_language_bank(folder).bank for folder in (bank, tmp_path / "new"))
    assert new.names == ("mongo",)
    for path, leaf in flat({"own": read_slot(old.tasks, 1), "shared": old.shared}).items():
        np.testing.assert_array_equal(leaf, flat({"own": read_slot(new.tasks, 0), "shared": new.shared})[path])


def test_a_compressed_bank_leaves_by_the_names_that_the_bank_does(
    bank: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also where the model is not there."""
    out_of(capsys, "export", bank, "mongo", "-o", tmp_path / "one")
    told = out_of(capsys, "compress", bank, "-o", tmp_path / "set")
    assert told["base_model"] == str(work / "decoder")
    out_of(capsys, "export", tmp_path / "set", "mongo", "-o", tmp_path / "other")
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "other"))
    assert one.keys() == other.keys()
    assert "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight" in one
    configs = [json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("one", "other")]
    for key in ("base_model_name_or_path", "task_type", "target_modules"):
        assert configs[0][key] == configs[1][key]
    assert configs[0]["task_type"] == "CAUSAL_LM"
    shutil.copytree(bank, tmp_path / "moved")
    settings = json.loads((bank / "language_model.json").read_text())
    (tmp_path / "moved" / "language_model.json").write_text(json.dumps({**settings, "model": "acme/gone"}))
    assert out_of(capsys, "compress", tmp_path / "moved", "-o", tmp_path / "gone")["base_model"] == "acme/gone"
    assert out_of(capsys, "similarity", bank)["tasks"] == ["sql", "mongo"]


@pytest.mark.parametrize("words", [("info",), ("validate",), ("remove", "sql"), ("diff", "sql", "mongo"), ("bench",)])
def test_a_bank_is_no_compressed_set(words: tuple[str, ...], bank: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([words[0], str(bank), *words[1:]]) == 2
    told = capsys.readouterr().err
    assert "got a language model's bank, expected a compressed set; see share-jax tasks" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("start", [pytest.param("zero", marks=pytest.mark.slow), "last"])
def test_one_subspace_proves_what_older_tasks_lose(
    start: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for task in ("sql", "mongo"):
        capsys.readouterr()
        more = ("--method", "share", "--num-basis", "6") if task == "sql" else ("--start-from", start)
        assert learn(work, tmp_path / "bank", task, "--json", *more) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["error_bounds"]) == {"sql", "mongo"}
    bank = str(tmp_path / "bank")
    assert main(["generate", bank, "--task", "sql", "--prompt", "the cat sat sql :", "--max-tokens", "5"]) == 0
    assert main(["compress", bank, "-o", str(tmp_path / "set")]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "x", "--data", "sql.jsonl"], "--model: got no bank"),
        (["--task", "x", "--data", "none.jsonl", "--model", "decoder"], "none.jsonl: got No such file"),
        (["--task", "x", "--data", "sql.jsonl", "--model", "nowhere"], "model: got no file or folder"),
        (["--task", "x", "--data", "bad.jsonl", "--model", "decoder"], "bad.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(
    words: list[str],
    said: str,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(work)
    (work / "bad.jsonl").write_text('{"prompt": "a"}\n')
    capsys.readouterr()
    assert main(["learn", str(tmp_path / "bank"), *words]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert said in told[0]
    assert not (tmp_path / "bank").exists()


def test_another_rank_than_the_banks_is_refused(work: Path, bank: Path, capsys: pytest.CaptureFixture) -> None:
    assert learn(work, bank, "words", "--rank", "3") == 2
    assert "--rank: got 3, expected 2, as the bank's tasks have" in capsys.readouterr().err


def test_a_task_that_is_not_there_is_refused(bank: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["generate", str(bank), "--task", "french", "--prompt", "a"]) == 2
    assert "task of the prompt: got 'french', expected one of sql, mongo" in capsys.readouterr().err
