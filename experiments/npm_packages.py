"""Packages of the npm registry, of which only texts are read: fetched once, checked by sha256, then cached.

`npm pack` brings the file as the registry has it; nothing is installed and no script of it is run. On a machine without
npm or a network, put the file at the path that the error names.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from experiments.assets import Notify, check_file, last_words, make_folder
from experiments.report.notify import to_stderr
from share_jax.errors import InputError, message
from share_jax.storage.cache_dir import cache_root


@dataclass(frozen=True)
class NpmPackage:
    """A pinned package; `size` in bytes, `sha256` in hex."""

    name: str
    version: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The name that npm gives to its file."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch_package(
    package: NpmPackage, cache_dir: str | os.PathLike[str] | None = None, notify: Notify | None = None
) -> Path:
    """The package's file, downloaded if it is not there yet and checked.

    Args:
        package: what is wanted.
        cache_dir: see `cache_root`.
        notify: is told of a download before it starts; by default a line on stderr.

    Raises:
        InputError: the download failed (offline, no npm), with the path at which to put the file by hand; or the
            cache folder cannot be made.
        FormatError: the file is not the pinned one.
    """
    path = cache_root(cache_dir) / "npm" / package.file
    make_folder(path.parent)
    if not path.exists():
        _download(package, path, notify or to_stderr)
    check_file(path, package.size, package.sha256, fix=f"delete it, or put the right {package.file} there")
    return path


def _download(package: NpmPackage, path: Path, notify: Notify) -> None:
    """Brings the file to its path by npm, whole or not at all."""
    wanted = f"{package.name}@{package.version}"
    what, fix = f"download of {wanted}", f"check the network, or put that file at {path}"
    npm = shutil.which("npm")
    if npm is None:
        fix = f"install Node.js with npm, or put that file at {path}"
        raise InputError(message(what, got="no npm", expected=package.file, fix=fix))
    notify(f"downloading {wanted} ({package.size / 1e6:.1f} MB) to {path}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", wanted]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        found = Path(folder) / package.file
        if done.returncode != 0 or not found.is_file():
            got = last_words(done.stderr) or f"npm's exit status {done.returncode}"
            raise InputError(message(what, got=got, expected=package.file, fix=fix))
        check_file(found, package.size, package.sha256, fix=f"put the right {package.file} at {path}")
        os.replace(found, path)
