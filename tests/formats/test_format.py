"""The registry of formats: what is asked in which order, and what is said when nothing fits."""

import pytest
from adapter_makers import factors, write_lorashare, write_peft, write_vlora

from share_jax.errors import FormatError, InputError
from share_jax.formats.format import FORMATS, Format, writer
from share_jax.formats.open import open_sources


@pytest.mark.parametrize("name", ["PEFT", "lorashare", "vlora"])
def test_a_folder_is_recognised_by_one_format_alone(tmp_path, name):
    make = {"PEFT": lambda root: write_peft(root, factors(0)), "lorashare": write_lorashare, "vlora": write_vlora}
    folder = make[name](tmp_path / "one")
    assert [each.name for each in FORMATS if each.detect(folder)] == [name]


def test_an_unknown_folder_is_refused_with_the_known_formats(tmp_path):
    with pytest.raises(
        FormatError, match="a folder of PEFT, lorashare, vlora, MLX-LM, diffusers, kohya, ComfyUI, GGUF or JAX trees"
    ):
        open_sources([tmp_path])


def test_a_further_format_is_one_entry(tmp_path):
    (tmp_path / "one").mkdir()
    own = Format("own", lambda folder: True, lambda folder: open_sources([peft]))
    peft = write_peft(tmp_path / "cola", factors(0))
    assert [source.name for source in open_sources([tmp_path / "one"], formats=(*FORMATS, own))] == ["cola"]


def test_a_format_that_is_read_alone_is_not_written(tmp_path):
    with pytest.raises(InputError, match="got vlora, expected PEFT"):
        writer("vlora")
