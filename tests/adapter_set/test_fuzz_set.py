"""Damaged and forged sets: `info`, `validate` and `export` end with a status and one line, and stay inside."""

import contextlib
import io
import json
import shutil

import pytest
from adapter_makers import factors, write_peft
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reading import watched

from share_jax.cli.main import main
from share_jax.storage.manifest_file import digest

FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats(-1, 9)
    | st.sampled_from(["", "x", "t0", "../x", "f32"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "t0", "bytes"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("forged")
    for i in range(2):
        write_peft(root / f"t{i}", factors(i, modules=("m.q_proj",), d_in=5, d_out=4))
    argv = ["compress", str(root / "t0"), str(root / "t1"), "-o", str(root / "set"), "--k", "5", "--storage", "int8"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(argv) == 0
    copy(root)
    commands(root)  # modules that a command loads late are loaded now
    return root


def commands(root):
    """Runs the commands on the set; only statuses and lines of their own may come."""
    for argv in (["info", "SET"], ["validate", "SET"], ["export", "SET", "t0", "-o", "OUT", "--overwrite"]):
        argv = [{"SET": str(root / "forged"), "OUT": str(root / "out")}.get(a, a) for a in argv]
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = main(argv)
        assert code in (0, 1, 2)
        assert err.getvalue().count("\n") == (code == 2)
        assert "internal error" not in err.getvalue()


def try_all(root):
    with watched(root):
        commands(root)


def copy(root):
    shutil.rmtree(root / "forged", ignore_errors=True)
    shutil.copytree(root / "set", root / "forged")
    return root / "forged"


@FUZZ
@given(st.data())
def test_flipped_bytes(made, data):
    folder = copy(made)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try_all(made)


FIELDS = [
    (key,)
    for key in (
        "base_model", "storage", "geometry", "choice", "limit", "pseudo_rank", "layers", "tasks", "configs", "basis",
        "coefficients", "extras", "files", "more",
    )
]  # fmt: skip
FIELDS += [("layers", "m.q_proj", key) for key in ("d_in", "d_out", "geometry", "num_basis", "pseudo_rank", "more")]
FIELDS += [
    ("tasks", "t0", key)
    for key in (
        "config", "metadata", "dtype", "bytes_in", "lora_bytes", "cut", "relative_error", "measured", "more",
    )
]  # fmt: skip
FIELDS += [("configs", "c0", key) for key in ("r", "lora_alpha", "peft_type", "rank_pattern")] + [("configs", "c0")]


@FUZZ
@given(st.sampled_from(FIELDS), JSON)
@example(("tasks", "t0", "dtype"), "x")
@example(("tasks", "t0", "metadata"), {"a": 1})
@example(("layers", "m.q_proj", "num_basis"), [2**40, 5])
@example(("files",), {})
@example(("configs", "c0", "lora_alpha"), 1e-45)
def test_forged_manifests(made, field, value):
    folder = copy(made)
    body = json.loads((folder / "manifest.json").read_text())
    body.pop("sha256")
    inner = body
    for key in field[:-1]:
        inner = inner[key]
    inner[field[-1]] = value
    body["sha256"] = digest(body)
    (folder / "manifest.json").write_text(json.dumps(body))
    try_all(made)
