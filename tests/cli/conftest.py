"""A command as a test runs it, five adapters and the set made of them."""

import json

import pytest
from adapter_makers import write_adapters

from share_jax.cli.main import main


@pytest.fixture
def run(capsys):
    """Runs a command and returns (exit status, JSON or text, lines of stderr)."""

    def call(*argv, json_out=True):
        code = main([str(a) for a in argv] + (["--json"] if json_out else []))
        out, err = capsys.readouterr()
        return code, (json.loads(out) if json_out and out else out), err.splitlines()

    return call


@pytest.fixture
def adapters(tmp_path):
    return write_adapters(tmp_path / "in", 5)


@pytest.fixture
def made(run, adapters, tmp_path):
    code, data, err = run("compress", *adapters, "-o", tmp_path / "set", "--k", 6)
    assert (code, err) == (0, [])
    return tmp_path / "set", data
