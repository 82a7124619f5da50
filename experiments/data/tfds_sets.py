"""TFDS data sets without TensorFlow: prepared as array_record, opened by name or from a prepared folder.

Reading never needs TensorFlow. Preparing does where a set hands over images as arrays (TFDS encodes them by it), and so
does converting what was prepared as tfrecord; `pip install "share_jax[tensorflow]"` brings it.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, InputError, ShareError, message

_MODULES = ("text", "image_classification", "image")
"""TFDS registers these data sets only once they are imported."""


def tfds_builder(dataset: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Any:
    """A TFDS builder that reads without TensorFlow.

    Args:
        dataset: a TFDS name such as "cifar100", prepared as array_record if it is not there yet; or the folder of a
            prepared version, such as ".../my_set/1.0.0", whose code need not be known.
        data_dir: where data sets are kept by name; None is TFDS's own default.

    Raises:
        InputError: tensorflow-datasets is not installed, does not know the data set, or cannot download it; or
            preparing it needs TensorFlow.
        FormatError: the folder holds no prepared data set, or one in a format that needs TensorFlow.
    """
    what = f"TFDS data set {os.fspath(dataset)!r}"
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        fix = "pip install tensorflow-datasets importlib_resources"
        raise InputError(message(what, got=error, expected="tensorflow-datasets", fix=fix)) from error
    if _is_folder(dataset):
        return _from_folder(tfds, os.fspath(dataset), what)
    for module in _MODULES:
        importlib.import_module(f"tensorflow_datasets.{module}")
    try:
        builder = tfds.builder(os.fspath(dataset), data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare(file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        fix = "check the name, or import the module that defines it"
        raise InputError(message(what, got="no such data set", expected="a TFDS name", fix=fix)) from error
    except ImportError as error:
        if "tensorflow" not in str(error):
            raise
        got = "one that TFDS cannot prepare without TensorFlow"
        fix = 'pip install "share_jax[tensorflow]" to prepare it once, or pass a data_dir that holds it'
        raise InputError(message(what, got=got, expected="TensorFlow or a prepared set", fix=fix)) from error
    except ValueError as error:
        if "File format is already set" not in str(error):
            raise
        builder = tfds.builder(os.fspath(dataset), data_dir=data_dir)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        fix = "check the network, or pass a data_dir that holds it as array_record"
        raise InputError(message(what, got=reason, expected="a prepared data set", fix=fix)) from error
    _check_format(builder, what)
    return builder


def prepared_set(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """A builder of a data set that is prepared in `data_dir`, whatever code wrote it; by its TFDS name if None.

    Args:
        name: of TFDS, such as "cifar100" or "glue/cola".
        data_dir: holds `name/VERSION`; the newest version is taken.

    Raises:
        ShareError: as `tfds_builder`; or the folder does not hold it, with the command that prepares it.
    """
    if data_dir is None:
        return tfds_builder(name)
    versions = [path.parent for path in Path(data_dir).expanduser().joinpath(name).glob("*/dataset_info.json")]
    if not versions:
        fix = f"tfds build {name} --file_format=array_record --data_dir={data_dir}"
        raise InputError(message(f"data folder {data_dir}", got=f"no {name}/VERSION in it", expected=name, fix=fix))
    return tfds_builder(max(versions, key=_version))


def _version(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.split(".") if part.isdigit()]


def records(builder: Any, split: str, encoded: Sequence[str] = ()) -> Any:
    """Random access to the examples of a split, or of a part of it such as "train[:10%]".

    Args:
        builder: of `tfds_builder`.
        split: its name.
        encoded: features, such as images, that are handed over as the bytes they are stored as.

    Raises:
        InputError: there is no such split, or its part is empty.
        FormatError: the data need TensorFlow.
    """
    what = f"TFDS data set {builder.info.name!r}"
    _check_format(builder, what)
    try:
        if not encoded:
            return builder.as_data_source(split=split)
        from tensorflow_datasets import decode

        return builder.as_data_source(split=split, decoders={name: decode.SkipDecoding() for name in encoded})
    except (ValueError, KeyError) as error:
        expected, fix = f"one of {sorted(builder.info.splits)}, or a part with examples", "check its name"
        raise InputError(message(f"split of {what}", got=repr(split), expected=expected, fix=fix)) from error


def _is_folder(dataset: str | os.PathLike[str]) -> bool:
    return not isinstance(dataset, str) or "://" in dataset or (Path(dataset) / "dataset_info.json").exists()


def _from_folder(tfds: Any, folder: str, what: str) -> Any:
    try:
        builder = tfds.builder_from_directory(folder)
    except (OSError, ValueError) as error:  # TFDS's own error is an OSError
        fix = "pass the folder of one version, such as .../my_set/1.0.0"
        got = "no readable dataset_info.json and features.json"
        raise FormatError(message(what, got=got, expected="a prepared data set", fix=fix)) from error
    _check_format(builder, what)
    return builder


def _check_format(builder: Any, what: str) -> None:
    found = {str(each.value) for each in builder.info.available_file_formats()}
    if not found & {"array_record", "parquet"}:
        raise _needs_tensorflow(what, ", ".join(sorted(found)) or "no files", str(builder.data_dir))


def _needs_tensorflow(what: str, got: str, folder: str) -> ShareError:
    convert = f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
    fix = f'pip install "share_jax[tensorflow]" and run `{convert}`, or prepare it in another data_dir'
    return FormatError(message(what, got=got, expected="array_record, which is read without TensorFlow", fix=fix))
