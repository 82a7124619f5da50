"""The note of a run: of today, and as versions before it wrote it."""

from pathlib import Path

import pytest

from experiments.workdir import NOTE
from share_jax.errors import FormatError

RUN = "python -m experiments.run --experiment digits5"
SUM = "bf939529ccb3da13d2d010bd69ec69f51d91c136a8cd8c99e92acb0c9f6957a3"


@pytest.mark.parametrize("text", [f'{{"run": "{RUN}", "sha256": "{SUM}"}}', f'{{"run": "{RUN}"}}'])
def test_older_notes_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert NOTE.read(tmp_path / "run.json") == {"run": RUN}
    NOTE.write({"run": RUN}, tmp_path / "run.json")
    assert NOTE.read(tmp_path / "run.json") == {"run": RUN}


@pytest.mark.parametrize("text", [f'{{"run": "{RUN}!", "sha256": "{SUM}"}}', "{}", "", '{"run"'])
def test_another_note_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(FormatError, match=r"run\.json: .*add --repair"):
        NOTE.read(tmp_path / "run.json")
