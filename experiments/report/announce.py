"""What a run says before its first step, and what to look at after its last: for whoever started it by `make run`."""

from pathlib import Path

from experiments.assets import Asset, wheel_path
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
    missing = [asset for asset in known.assets if not _there(asset, config)]
    size = sum(asset.size for asset in missing) / 1e6
    names = ", ".join(asset.name for asset in missing)
    fetched = f"downloads {size:.0f} MB ({names}) to {cache}" if missing else "downloads nothing"
    minutes = known.minutes if config.preset == "default" else None
    time = f"; about {minutes} minutes on two free CPU cores for one seed" if minutes else ""
    return f"{config.experiment}, preset {config.preset}: {fetched}{time}"


def ending(page: Path) -> str:
    """What to look at first.

    Args:
        page: the run's report for a browser.
    """
    return f"Look first at {page}: its table has every method, and ACC and forgetting are its first columns."


def _there(asset: Asset, config: Config) -> bool:
    """Whether nothing of it would be fetched; files are checked by their sha256 when they are read."""
    folder = cache_root(config.cache_dir) / "assets" / f"{asset.name}-{asset.version}"
    whole = all((folder / member.name).is_file() for member in asset.members)
    return whole or wheel_path(asset, config.cache_dir).is_file()
