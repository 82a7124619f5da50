"""What is noted of adapters on their way into a set: where they began, and the spectra that errors are compared by."""

from collections.abc import Mapping, Sequence

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.shared_starts import Sample, Starts, find_starts, sample_of
from share_jax.adapters.stacking import groups, pack, shapes_of
from share_jax.annotations import Float
from share_jax.linalg.balance import singular_values
from share_jax.linalg.padding import pad
from share_jax.runtime.threads import parallel_map


class Survey:
    """Collects while adapters are streamed; a few thousand numbers per task and target, whatever their size."""

    def __init__(self, tasks: Sequence[str]) -> None:
        """Knows the tasks, in the order in which they come."""
        self._places = {name: i for i, name in enumerate(tasks)}
        self._samples: list[dict] = [{} for _ in tasks]
        self._values: dict[str, Float[np.ndarray, "T m"]] = {}

    def see(self, task: str, adapter: Adapter) -> None:
        """Samples an adapter as it was read, all of it or some of its targets."""
        own = self._samples[self._places[task]]
        if any((name, np.shape(factors.lora_a)) not in own for name, factors in adapter.items()):
            own.update(sample_of(adapter))

    def spectra_seen(self, first: int, targets: Sequence[str], values: Float[np.ndarray, "targets tasks m"]) -> None:
        """Notes the singular values of some tasks' updates, of which `first` is the position of the first."""
        for name, found in zip(targets, values, strict=True):
            known = self._values.get(name)
            width = found.shape[1] if known is None else max(found.shape[1], known.shape[1])
            known = np.zeros((len(self._places), width)) if known is None else pad(known, 1, width)
            known[first : first + len(found), : found.shape[1]] = found
            self._values[name] = known

    def measure(self, adapters: Mapping[str, Adapter]) -> None:
        """Finds and notes the singular values of all tasks on some targets."""
        own = list(adapters.values())
        for names in groups(shapes_of(own, {})).values():
            packed = pack(own, names)
            found = parallel_map(lambda i: singular_values(packed.a[i], packed.b[i]), range(len(names)))  # noqa: B023
            self.spectra_seen(0, names, np.stack(found))

    @property
    def spectra(self) -> Mapping[str, Float[np.ndarray, "T m"]]:
        """Singular values of the updates that were compressed, by target."""
        return self._values

    @property
    def samples(self) -> Sequence[Sample]:
        """Of every task's A, in order."""
        return self._samples

    def starts(self) -> Starts:
        """The groups of tasks that began alike."""
        return find_starts(self._samples)
