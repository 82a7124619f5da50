"""The command as a real process: start-up, exit statuses, killed writers."""

import json
import os
import subprocess
import sys
import time

import pytest
from adapter_makers import factors, write_adapters, write_peft

from share_jax.cli.main import COMMANDS, main

STORE = "share_jax.adapter_set.store"
KILLED = """
import importlib, os, sys
from share_jax.cli.main import main
module = importlib.import_module({module!r})
module.{name} = lambda *a, **k: os.kill(os.getpid(), 9)
sys.exit(main(sys.argv[1:]))
"""

OF_MODELS = {"learn", "generate", "evaluate", "tasks", "import"}
"""The commands that run a language model, or read what one has learnt."""


def run(*argv, code=None, **options):
    start = ["-m", "share_jax.cli"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_help_names_every_command_and_each_has_an_example(capsys):
    top = run("--help")
    assert top.returncode == 0
    for name in COMMANDS:
        assert name in top.stdout
        assert main([name, "--help"]) == 0
        assert f"example:\n  share-jax {name}" in capsys.readouterr().out


def test_version():
    from share_jax import __version__

    assert run("--version").stdout == f"share-jax {__version__}\n"


def test_help_imports_neither_numpy_nor_jax():
    code = (
        "import sys; from share_jax.cli.main import main; main(['--help']); print({'numpy', 'jax'} & set(sys.modules))"
    )
    assert run(code=code).stdout.endswith("set()\n")


def test_neither_help_nor_a_refusal_loads_jax(tmp_path):
    none = str(tmp_path / "none")
    calls = [[name, "--help"] for name in COMMANDS] + [["tasks", none], ["evaluate", none, "--data", none]]
    calls += [["learn", none, "--task", "a", "--data", none], ["generate", none, "--file", none]]
    code = "import json, sys; from share_jax.cli.main import main\n"
    code += "for words in json.loads(sys.argv[1]): main(words)\n"
    code += "print([name for name in sys.modules if name.split('.')[0] in ('jax', 'jaxlib', 'flax')])"
    done = run(json.dumps(calls), code=code)
    assert done.stdout.endswith("\n[]\n"), done.stderr
    assert done.stderr.count("none") == 4


def test_no_command_on_adapter_files_loads_jax(tmp_path):
    """All of them in one process, with every way of choosing k, geometry and storage."""
    folders = [str(x) for x in write_adapters(tmp_path / "in", 4)]
    new, made, out = str(write_peft(tmp_path / "new", factors(7))), str(tmp_path / "set"), iter(range(99))

    def fresh():
        return "-o", str(tmp_path / f"out{next(out)}")

    calls = [("compress", *folders, "-o", made, "--k", "4")]
    calls += [
        ("compress", *folders, *fresh(), *flags)
        for flags in ((), ("--max-error", "0.1"), ("--storage", "int8"), ("--geometry", "flat"), ("--geometry", "auto"))
    ]
    calls += [("add", made, new), ("add", str(tmp_path / "out1"), new), ("remove", made, "t3")]
    calls += [("recompress", made, *flags) for flags in (("--k", "3"), ("--explained-variance", "0.9"))]
    calls += [("info", made), ("validate", made), ("validate", made, "--against", *folders[:2])]
    calls += [("export", made, "t0", *fresh()), ("diff", made, "t0", "t1"), ("bench", made, "--repeat", "1")]
    calls += [("similarity", made, "--heatmap", str(tmp_path / "map.svg")), ("similarity", *folders)]
    calls += [("plan", *folders, "--k", "2"), ("convert", folders[0], *fresh(), "--to", "mlx")]
    calls += [("merge", made, "t0", "t1", "--method", method, *fresh()) for method in ("linear", "ties", "dare")]
    assert {name for name, *_ in calls} == set(COMMANDS) - OF_MODELS
    code = "import json, sys; from share_jax.cli.main import main\n"
    code += "print([main(words) for words in json.loads(sys.argv[1])])\n"
    code += "print([name for name in sys.modules if name.split('.')[0] in ('jax', 'jaxlib', 'flax')])"
    done = run(json.dumps(calls), code=code)
    *_, statuses, loaded = done.stdout.splitlines()
    assert json.loads(statuses) == [0] * len(calls), done.stderr
    assert loaded == "[]"


def test_start_up_is_within_three_numpy_imports():
    def best(*command):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("-m", "share_jax.cli", "--help") <= 3 * best("-c", "import numpy")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("process")
    folders = write_adapters(root / "in", 2)
    write_peft(root / "new", factors(7))
    done = run("compress", *folders, "-o", root / "set", "--k", 4, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["tasks"] == 2
    return root


def test_exit_statuses(made):
    assert run("info", made / "set").returncode == 0
    for argv in (("info", made / "none"), ("info",), ("export", made / "set", "no", "-o", made / "x")):
        failed = run(*argv)
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1


def test_a_closed_pipe_is_no_error(made):
    command = f"{sys.executable} -m share_jax.cli info {made / 'set'} --json | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_progress_is_plain_lines_when_asked_for_and_silent_otherwise(made):
    done = run("similarity", made / "in" / "t0", made / "in" / "t1", "--progress")
    assert "compared up to adapter 2/2" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(("module", "name"), [(STORE, "replace_bytes"), (STORE, "write_tensors")])
def test_a_killed_add_leaves_the_old_set_whole(made, module, name):
    before = run("info", made / "set", "--json").stdout
    manifest = (made / "set" / "manifest.json").read_bytes()
    killed = run("add", made / "set", made / "new", code=KILLED.format(module=module, name=name))
    assert killed.returncode == -9
    assert (made / "set" / "manifest.json").read_bytes() == manifest
    after = run("info", made / "set", "--json").stdout
    assert {**json.loads(after), "seconds": 0} == {**json.loads(before), "seconds": 0}
    assert run("validate", made / "set").returncode == 0


def test_a_killed_compress_leaves_nothing_in_the_way(made):
    argv = ("compress", made / "in" / "t0", "-o", made / "fresh")
    assert run(*argv, code=KILLED.format(module=STORE, name="replace_bytes")).returncode == -9
    assert not (made / "fresh").exists()
    assert [n for n in os.listdir(made) if n.startswith(".fresh")]
    assert run(*argv).returncode == 0
    assert not [n for n in os.listdir(made) if n.startswith(".fresh")]
