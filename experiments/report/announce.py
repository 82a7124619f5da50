"""What a run says before its first step, and what to look at after its last: for whoever started it by `make run`."""

from pathlib import Path

from experiments.assets import SMOLLM2, Asset, folder_of, smollm2_path, wheel_path
from experiments.config.experiment import experiment
from experiments.config.run_config import Config
from share_jax.storage.cache_dir import cache_root


def beginning(config: Config) -> str:
    """What will be downloaded, and how long the run takes.

    Args:
        config: of the run.
    """
    known = experiment(config.experiment)
    cache = cache_root(config.cache_dir)
    needed = known.assets if config.weights is None else ()
    missing = [asset for asset in needed if not _there(asset, config)]
    size = sum(asset.size for asset in missing) / 1e6
    names = ", ".join(asset.name for asset in missing)
    fetched = f"downloads {size:.0f} MB ({names}) to {cache}" if missing else "downloads nothing"
    minutes = known.minutes.get(config.preset)
    time = f"; about {minutes} minutes on two free CPU cores for one seed" if minutes else ""
    return f"{config.experiment}, preset {config.preset}: {fetched}{time}"


def ending(page: Path, config: Config) -> str:
    """What to look at first, and where a decoder that was downloaded lies.

    Args:
        page: the run's report for a browser.
        config: of the run.
    """
    said = f"Look first at {page}: its table has every method, and ACC and forgetting are its first columns."
    if SMOLLM2 not in experiment(config.experiment).assets or config.weights is not None:
        return said
    return f"{said}\nThe model: share-jax learn BANK --model {smollm2_path(config.cache_dir)} --task NAME --data FILE"


def _there(asset: Asset, config: Config) -> bool:
    """Whether nothing of it would be fetched; files are checked by their sha256 when they are read."""
    folder = folder_of(asset, config.cache_dir)
    whole = all((folder / member.name).is_file() for member in asset.members)
    return whole or wheel_path(asset, config.cache_dir).is_file()
