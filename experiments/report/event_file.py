"""One TensorBoard event file of scalars that can be cut and gone on with, so that a resumed run repeats nothing.

The format is TFRecord around `Event` messages: length (uint64), its checksum, the message, its checksum; checksums are
masked CRC-32C, all little-endian. A tail torn by a kill is found by them.
"""

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

NAME = "events.out.tfevents.0.share_jax"
"""TensorBoard takes every file with `tfevents` in its name for a log."""


class Scalar(NamedTuple):
    """One number of a log."""

    tag: str
    step: int
    value: float


def read_scalars(folder: Path) -> list[Scalar]:
    """Every scalar of the folder's event file, in the order of the file; none if there is no file."""
    path = folder / NAME
    if not path.exists():
        return []
    events = (event for event, _ in _events(path.read_bytes()))
    return [Scalar(value.tag, event.step, value.simple_value) for event in events for value in event.summary.value]


class EventFile:
    """Appends scalars. What is written has left the process when `write` returns."""

    def __init__(self, folder: Path, goes_on: Callable[[Scalar], bool]) -> None:
        """Opens the folder's file, or makes it, and cuts it off at the first scalar that `goes_on` refuses."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / NAME
        end = 0
        if path.exists():
            for event, after in _events(path.read_bytes()):
                if not all(goes_on(Scalar(v.tag, event.step, v.simple_value)) for v in event.summary.value):
                    break
                end = after
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, scalars: list[Scalar]) -> None:
        """Appends scalars, stamped with the time of now."""
        for tag, step, value in scalars:
            event = Event(wall_time=time.time(), step=step)
            event.summary.value.add(tag=tag, simple_value=value)
            self._append(event)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, event: Any) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def _events(content: bytes) -> Iterator[tuple[Any, int]]:
    """Every whole event and the offset of its end, up to the first that is torn or damaged."""
    start = 0
    while start + 12 <= len(content):
        length = content[start : start + 8]
        body = start + 12
        end = body + struct.unpack("<Q", length)[0]
        if content[body - 4 : body] != _checksum(length) or end + 4 > len(content):
            return
        if content[end : end + 4] != _checksum(content[body:end]):
            return
        event = Event()
        event.ParseFromString(content[body:end])
        start = end + 4
        yield event, start
