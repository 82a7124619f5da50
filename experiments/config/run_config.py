"""The typed configuration of a run, its presets, and the command line that is made of it."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from experiments.config import large_presets
from experiments.config.baselines import CHOSEN, Baselines
from share_jax.errors import InputError, ShareError, message
from share_jax.sharding.mesh_shape import parse_mesh

Preset = Literal["quick", "default", "full"]
Experiment = Literal[
    "newsgroups10", "clinc150", "three_corpora", "digits5", "split_mnist5", "rotated_mnist10", "split_fashion5",
    "cifar100_10", "imagenet_r_10", "food101_10", "caltech101_10", "flowers102_10", "images3", "glue6",
]  # fmt: skip
Protocol = Literal["task", "domain", "class"]
OWN_PROTOCOL: dict[str, Protocol] = {"rotated_mnist10": "domain"}
"""The protocol of each stream; task-incremental if it is not here."""


def _commas(item: type) -> Any:
    """One argument "a,b,c" for a tuple."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{item.__name__.upper()},...",
        instance_from_str=lambda args: tuple(item(part) for part in args[0].split(",") if part),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(part, item) for part in value),
        str_from_instance=lambda value: [",".join(str(part) for part in value)],
    )


Names = Annotated[tuple[str, ...], _commas(str)]
Numbers = Annotated[tuple[int, ...], _commas(int)]

MAIN = ("shared_a", "separate_lora", "sequential_lora", "sequential_lora_heads", "frozen_head", "joint", "majority")
PUBLISHED = (
    "full_finetune",
    "houlsby_adapters",
    "houlsby_adapters_sequential",
    "ewc_lora",
    "lwf_lora",
    "er_lora",
    "der_lora",
    "o_lora",
    "inflora",
    "sd_lora",
    "l2p",
)
METHODS = (*MAIN, "share", "share_coefficients", *PUBLISHED)
ID_ALONE = "sequential_lora_heads"
"""What differs from `sequential_lora` only where the task's id is given."""


class ConfigError(ShareError):
    """A field of the configuration is out of range. No ValueError, which the parser would word in its own way."""


@dataclass(frozen=True)
class Config:
    """Learns a stream of tasks one after another on a frozen model, with several methods, and reports."""

    experiment: Experiment = "newsgroups10"
    """Which stream of tasks."""
    preset: Preset = "default"
    """Amount of work: quick is a smoke test, default the published table, full uses all data for longer."""
    protocol: Protocol | None = None
    """What is known of an example when it is answered: task gives its task's id; domain gives no id, and all tasks have
    the same outputs; class gives no id, and outputs grow with the tasks. The stream's own when None."""
    held_out: bool = False
    """Test on a fifth of the training examples, which are not trained on then: to choose rates without the test."""
    methods: Names = MAIN
    """What to compare, separated by commas."""
    seeds: Numbers = (0,)
    """Seeds of initialisation and data order, separated by commas."""
    workdir: Path = Path("runs/newsgroups10")
    """Where everything is written. A folder that is not empty is refused without --resume or --overwrite."""
    resume: bool = False
    """Go on with the run in the workdir."""
    overwrite: bool = False
    """Replace the run in the workdir."""
    repair: bool = False
    """With --resume: give up what is damaged in a checkpoint, and go on from the last good state."""
    quiet: bool = False
    """No progress bar."""
    scalars: Literal["tensorboard"] | None = None
    """Where the loss of every step and the accuracies after every task go: event files in WORKDIR/scalars."""

    rank: int = 4
    """Rank of every adapter."""
    alpha: float = 8.0
    """Scale of the update is alpha / rank."""
    targets: Names = ()
    """Regular expressions over kernel paths, separated by commas; the model's default kernels when empty."""
    first_layer: int = 0
    """First layer that is adapted; what lies below is frozen and computed once per example."""
    first_sublayer: Literal["attention", "ffn"] = "attention"
    """Where in first_layer the frozen part ends: before its attention, or between that and its feed-forward part."""
    prefix_cache_bytes: int = 4 * 2**30
    """Memory for the outputs of what is frozen below the first adapted layer; what does not fit lies in files of the
    workdir."""
    num_basis: int = 48
    """Columns of each basis of `share`."""
    phi: int = 16
    """Temporary directions per side while `share` learns a task."""
    adapt_tasks: int = 4
    """Tasks that `share_coefficients` learns with temporary directions before it trains coefficients alone."""
    max_error: float | None = None
    """Proven relative error that `share` may let any task's update reach; bases grow as needed. No limit if None."""
    bf16: bool = False
    """Compute in bfloat16; parameters stay float32."""
    mesh: str | None = None
    """Devices along the axes data, fsdp and tensor, such as data=4,fsdp=2; all must be used. One device when None."""
    distributed: bool = False
    """This is one of several processes that run the same command, as on a TPU slice (see experiments/tpu.md)."""
    accumulate: int = 1
    """Microbatches into which each batch is split, to save memory; the updates stay those of the whole batch."""
    remat: Literal["nothing", "dots", "dots_without_batch"] | None = None
    """What each block of the model keeps for the backward pass, which computes the rest again; everything when None."""

    steps: int = 60
    """Updates per task, the same for every method and task."""
    batch_size: int = 32
    """Examples per update."""
    eval_batch_size: int = 128
    """Examples per evaluation step."""
    learning_rate: float = 2e-3
    """Peak rate of AdamW for the adapters, after 10 % warm-up, with cosine decay within the task."""
    head_learning_rate: float = 2e-3
    """The same for the heads."""
    head_first: float = 0.0
    """Share of a task's updates in which its head alone trains (Kumar et al. 2022, LP-FT: pretrained features are
    distorted less by an adapter that starts from a fitted head)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    clip_norm: float = 1.0
    """Global norm at which the gradients of what trains are clipped."""
    save_every: int = 200
    """Updates between checkpoints of the training in flight."""

    baselines: Annotated[Baselines, tyro.conf.arg(name="")] = Baselines()  # noqa: RUF009  frozen
    """What only some of the published baselines read."""

    max_length: int = 64
    """Tokens per text; longer texts are cut."""
    length_buckets: Numbers = ()
    """Lengths below max_length that batches of texts of about one length are cut to, separated by commas; each compiles
    once. Every batch has max_length tokens when empty."""
    prefetch: int = 2
    """Batches that are prepared ahead; 0 prepares each when the step asks for it."""
    train_per_task: int | None = None
    """Training examples per task; all when None."""
    test_per_task: int | None = None
    """Test examples per task; all when None."""
    order_seed: int = 0
    """Seeds the order of the tasks; the same for every run of a table."""
    cache_dir: Path | None = None
    """Where weights and texts are kept; $SHARE_JAX_CACHE or the user's cache folder when None."""
    compile_cache: Path | None = None
    """Where compiled programs are kept, so that a second run of one configuration compiles nothing; nowhere if None."""
    data_folder: Path | None = None
    """Where the data are: CLINC150's folder with data_full.json and domains.json, from TensorFlow Datasets when None;
    Fashion-MNIST's folder with its four files, from Debian's package dataset-fashion-mnist when None, or a TensorFlow
    Datasets folder that has it; for the streams of experiments/streams/tfds.md, such a folder of prepared sets, their
    default when None."""
    weights: Path | None = None
    """Pretrained weights of the image and GLUE streams: ViT as .npz or a Hugging Face folder, RoBERTa as a folder."""
    image_size: int = 224
    """Pixels a side of the images; places are interpolated where the checkpoint has another size."""

    def __post_init__(self) -> None:
        """Checks what the types cannot."""
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigError(
                message(
                    "--methods", got=unknown or "none", expected=f"some of {', '.join(METHODS)}", fix="check the name"
                )
            )
        if ID_ALONE in self.methods and protocol_of(self.experiment, self.protocol) != "task":
            got, expected = ID_ALONE, "methods that need no task id"
            raise ConfigError(
                message("--methods", got=got, expected=expected, fix="leave it out, or add --protocol task")
            )
        for name in (
            "steps",
            "batch_size",
            "eval_batch_size",
            "save_every",
            "max_length",
            "num_basis",
            "phi",
            "rank",
            "accumulate",
            "image_size",
        ):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(message(flag, got=getattr(self, name), expected="at least 1", fix="raise it"))
        if (found := self.baselines.problem()) is not None:
            name, got, expected = found
            raise ConfigError(message(name, got=got, expected=expected, fix="change it"))
        for name, fix in (("prefetch", "pass 0 or 2"), ("prefix_cache_bytes", "pass 0 to use files alone")):
            if getattr(self, name) < 0:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(message(flag, got=getattr(self, name), expected="at least 0", fix=fix))
        buckets = self.length_buckets
        if list(buckets) != sorted(set(buckets)) or any(length < 1 for length in buckets):
            fix = "pass such as 8,12,16"
            raise ConfigError(message("--length-buckets", got=buckets, expected="rising whole numbers", fix=fix))
        try:
            parts = self.accumulate * (1 if self.mesh is None else parse_mesh(self.mesh).batch_parts)
        except InputError as error:
            raise ConfigError(f"--{error}") from error
        if self.batch_size % parts:
            expected = f"a multiple of {parts}, the parts of each batch"
            fix = "change --batch-size, --mesh or --accumulate"
            raise ConfigError(message("--batch-size", got=self.batch_size, expected=expected, fix=fix))
        replayed = self.baselines.replay_batch
        if replayed is not None and replayed % parts:
            expected = f"a multiple of {parts}, the parts of each batch"
            raise ConfigError(message("--replay-batch", got=replayed, expected=expected, fix="change it"))
        if not 0 <= self.head_first < 1:
            raise ConfigError(
                message("--head-first", got=self.head_first, expected="at least 0 and below 1", fix="pass 0.5 or less")
            )
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ConfigError(
                message("--seeds", got=self.seeds, expected="different whole numbers", fix="--seeds 0,1,2")
            )
        if self.repair and not self.resume:
            raise ConfigError(message("--repair", got="no --resume", expected="both", fix="add --resume"))
        if self.resume and self.overwrite:
            raise ConfigError(
                message("--resume and --overwrite", got="both", expected="at most one", fix="leave one of them out")
            )


_TEXT = {"rank": 16, "alpha": 32.0, "num_basis": 40, "learning_rate": 1e-3, "head_learning_rate": 0.03}
"""Rates were chosen on CLINC150's validation queries, and for 20 Newsgroups on test texts that the default preset does
not use."""

_NEWSGROUPS = {
    **_TEXT,
    "learning_rate": 2e-3,
    "first_layer": 4,
    "first_sublayer": "ffn",
    "steps": 100,
    "batch_size": 16,
    "max_length": 48,
    "eval_batch_size": 100,
}
_CLINC = {
    **_TEXT,
    "first_layer": 4,
    "first_sublayer": "ffn",
    "steps": 100,
    "max_length": 24,
    "length_buckets": (8, 12, 16, 24),
    "eval_batch_size": 150,
}

_CORPORA = {**_NEWSGROUPS, "steps": 200}
"""The rates are those of 20 Newsgroups: nothing was chosen on this stream."""

_IMAGES = {"learning_rate": 5e-3, "head_learning_rate": 1e-2, "num_basis": 12, "phi": 4}

_QUICK: dict[str, dict[str, Any]] = {
    "newsgroups10": {**_NEWSGROUPS, "steps": 6, "train_per_task": 64, "test_per_task": 32, "max_length": 32},
    "clinc150": {**_CLINC, "steps": 10, "train_per_task": 150, "test_per_task": 60},
    "three_corpora": {**_CORPORA, "steps": 6, "train_per_task": 80, "test_per_task": 40, "max_length": 32},
    "digits5": {"steps": 40},
    "split_mnist5": {**_IMAGES, "steps": 20, "train_per_task": 200, "test_per_task": 60},
    "rotated_mnist10": {**_IMAGES, "steps": 20, "train_per_task": 200, "test_per_task": 60},
    "split_fashion5": {**_IMAGES, "steps": 20, "train_per_task": 200, "test_per_task": 60},
}
_DEFAULT: dict[str, dict[str, Any]] = {
    "newsgroups10": {**_NEWSGROUPS, "test_per_task": 200},
    "clinc150": _CLINC,
    "three_corpora": {**_CORPORA, "train_per_task": 4000, "test_per_task": 500},
    "digits5": {"steps": 100, **_IMAGES},
    "split_mnist5": {**_IMAGES, "steps": 150},
    "rotated_mnist10": {**_IMAGES, "steps": 150, "train_per_task": 1000, "test_per_task": 300},
    "split_fashion5": {**_IMAGES, "steps": 150, "train_per_task": 2000, "test_per_task": 500},
}
_FULL: dict[str, dict[str, Any]] = {
    "newsgroups10": {**_NEWSGROUPS, "steps": 300, "max_length": 128, "length_buckets": (32, 64, 96)},
    "clinc150": {**_CLINC, "steps": 300, "max_length": 40},
    "three_corpora": {**_CORPORA, "steps": 600, "max_length": 128, "length_buckets": (32, 64, 96)},
    "digits5": {"steps": 400, **_IMAGES},
    "split_mnist5": {**_IMAGES, "steps": 400},
    "rotated_mnist10": {**_IMAGES, "steps": 400},
    "split_fashion5": {**_IMAGES, "steps": 600},
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "quick": _QUICK | large_presets.QUICK,
    "default": _DEFAULT | large_presets.DEFAULT,
    "full": _FULL | large_presets.FULL,
}


def protocol_of(experiment: str, protocol: Protocol | None = None) -> Protocol:
    """The protocol that holds: the one that was asked for, or the stream's own.

    >>> protocol_of("digits5"), protocol_of("rotated_mnist10"), protocol_of("digits5", "class")
    ('task', 'domain', 'class')
    """
    return protocol or OWN_PROTOCOL.get(experiment, "task")


def preset(experiment: Experiment, name: Preset, protocol: Protocol | None = None) -> Config:
    """The configuration of an experiment at a preset, under a protocol.

    >>> preset("digits5", "quick").steps
    40
    """
    holds, own = protocol_of(experiment, protocol), protocol_of(experiment)
    workdir = Path("runs") / (experiment if holds == own else f"{experiment}-{holds}")
    methods = tuple(method for method in MAIN if method != ID_ALONE or holds == "task")
    return Config(
        experiment=experiment,
        preset=name,
        protocol=protocol,
        methods=methods,
        workdir=workdir,
        baselines=CHOSEN.get(f"{experiment}-{holds}", CHOSEN.get(experiment, Baselines())),
        **PRESETS[name][experiment],
    )


def parse(argv: Sequence[str]) -> Config:
    """Reads a command line: --experiment, --preset and --protocol choose the defaults, every flag changes one field.

    Raises:
      ConfigError: if a value is out of range or the flags contradict each other.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--experiment", default="newsgroups10")
    first.add_argument("--preset", default="default")
    first.add_argument("--protocol", default=None)
    chosen, _ = first.parse_known_args(argv)
    known = chosen.preset in PRESETS and chosen.experiment in PRESETS[chosen.preset]
    protocol = chosen.protocol if chosen.protocol in ("task", "domain", "class") else None
    default = preset(chosen.experiment, chosen.preset, protocol) if known else Config()
    return tyro.cli(Config, args=list(argv), default=default, prog="python -m experiments.run")


def _values(config: Any, base: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and preset of every flag, those of nested fields too."""
    for field in fields(config):
        value, usual = getattr(config, field.name), getattr(base, field.name)
        if isinstance(value, Baselines):
            yield from _values(value, usual)
        else:
            yield field.name, value, usual


def command_line(config: Config) -> str:
    """The command that repeats a run, without the paths of the machine that it ran on.

    A run on held-out examples is what a baseline's numbers are chosen by: its command names them all, so that it stays
    what it is when the presets take over what was chosen.
    """
    numbers = {field.name for field in fields(Baselines)} if config.held_out else set()
    base = replace(preset(config.experiment, config.preset, config.protocol), protocol=None)
    words = ["python -m experiments.run", f"--experiment {config.experiment}", f"--preset {config.preset}"]
    paths = {"workdir", "cache_dir", "data_folder", "weights", "resume", "overwrite", "repair", "quiet", "distributed"}
    paths |= {"experiment", "preset", "scalars", "prefix_cache_bytes", "compile_cache"}
    for name, value, usual in _values(config, base):
        if name in paths or value is None or (value == usual and name not in numbers):
            continue
        flag = "--" + name.replace("_", "-")
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        words.append(flag if value is True else f"{flag} {text}")
    return " ".join(words)


if __name__ == "__main__":
    print(command_line(parse(sys.argv[1:])))
