"""Which base models are one, and what a set stores of their names."""

import pytest
from adapter_makers import factors, write_peft

from share_jax.errors import InputError
from share_jax.formats.base_model import common_base, same_base, stored_config, with_base
from share_jax.formats.open import open_sources

SNAPSHOT = "/data/hub/models--acme--tiny-chat/snapshots/0123456789abcdef"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("acme/tiny-chat", SNAPSHOT, True),
        (SNAPSHOT, "/other/cache/models--acme--tiny-chat/snapshots/fedcba/", True),
        ("models--acme--tiny-chat/snapshots/1", "acme/Tiny-Chat", True),
        ("C:\\hub\\models--gpt2\\snapshots\\12", "gpt2", True),
        (SNAPSHOT, "/data/hub/models--acme--tiny/snapshots/0123456789abcdef", False),
        ("/in/gemma/2", "/in/qwen/2", False),
        ("/in/gemma/2", "/in//gemma/2/", True),
        ("/in/gemma/2", "/in/Gemma/2", False),
        ("./models/a", "models/a", True),
        ("C:\\models\\a", "D:\\models\\a", False),
        ("acme/tiny", "other/tiny", False),
        ("acme/tiny", "/data/acme/tiny", False),
        ("acme/tiny", "acme/tiny-bnb-4bit", False),
        ("acme/tiny", None, False),
        (None, None, True),
    ],
)
def test_one_base_is_told_from_two(first, second, same):
    assert same_base(first, second) is same
    assert same_base(second, first) is same


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("acme/tiny", "acme/tiny"),
        (SNAPSHOT, "acme/tiny-chat"),
        ("/data/models/tiny/2", "/data/models/tiny/2"),
        ("", ""),
        (None, None),
    ],
)
def test_a_configuration_is_stored_as_it_is_but_for_the_place_of_a_cache(name, stored):
    assert stored_config({"base_model_name_or_path": name, "r": 1}) == {"base_model_name_or_path": stored, "r": 1}


@pytest.mark.parametrize("names", [("acme/tiny", "/data/tiny"), ("/a/2", "/b/2"), ("acme/tiny", None)])
def test_the_given_base_model_decides_for_all(tmp_path, names):
    folders = [write_peft(tmp_path / f"t{i}", factors(i), base_model_name_or_path=name) for i, name in enumerate(names)]
    sources = open_sources(folders)
    with pytest.raises(InputError, match="--base-model"):
        common_base(sources)
    given = with_base(sources, "acme/one")
    assert common_base(given) == "acme/one"
    assert [source.config["base_model_name_or_path"] for source in given] == ["acme/one"] * 2
    assert common_base(given, known=["acme/One"]) == "acme/One"
    with pytest.raises(InputError, match="acme/one, expected acme/set as the set"):
        common_base(given, known=["acme/set"])
