"""lorashare and vlora in a warm process: a folder of adapters in, a compressed set on disk out, and back."""
# pyright: reportMissingImports=false

import shutil
import time
from pathlib import Path
from typing import Any


class Lorashare:
    """lorashare's public class."""

    def __init__(self) -> None:
        """Imports it."""
        import lorashare  # noqa: F401

        self.facts: dict[str, Any] = {}

    def run(self, job: str, folders: list[str], out: str, k: int, task: str = "", into: str = "") -> dict[str, Any]:
        """Compresses, adds or exports; loading and saving are part of the time."""
        from lorashare import SHAREModel

        if job == "compress":
            shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        if job == "compress":
            SHAREModel.from_adapters(folders, num_components=k, device="cpu").save_pretrained(out)
        elif job == "add":
            model = SHAREModel.from_pretrained(out)
            model.add_adapter(folders[0], name=task)
            model.save_pretrained(out)
        else:
            SHAREModel.from_pretrained(out).reconstruct(task, output_dir=into)
        return {"seconds": time.perf_counter() - began}


class Vlora:
    """vlora's public class."""

    def __init__(self) -> None:
        """Imports it."""
        import vlora  # noqa: F401

        self.facts: dict[str, Any] = {}

    def run(self, job: str, folders: list[str], out: str, k: int, task: str = "", into: str = "") -> dict[str, Any]:
        """Compresses, adds or exports; loading and saving are part of the time."""
        from vlora import SharedSubspace, load_adapter, save_adapter

        if job == "compress":
            shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        if job == "compress":
            names = [Path(folder).name for folder in folders]
            adapters = [load_adapter(Path(folder)) for folder in folders]
            SharedSubspace.from_adapters(adapters, task_ids=names, num_components=k).save(out)
        elif job == "add":
            subspace = SharedSubspace.load(out)
            subspace.absorb_incremental(load_adapter(Path(folders[0])), task)
            subspace.save(out)
        else:
            save_adapter(SharedSubspace.load(out).reconstruct(task), into)
        return {"seconds": time.perf_counter() - began}
