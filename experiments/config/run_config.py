"""The typed configuration of a run, its presets, and the command line that is made of it."""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from experiments.config.command_words import DATA
from experiments.config.experiment import Preset, Protocol, experiment, experiments, protocol_of
from experiments.config.methods import (
    ID_ALONE,
    MAIN,
    PUBLISHED,
    fields_of,
    method_names,
    numbers_of,
    tuned,
)
from experiments.config.numbers import ConfigError, MethodNumbers, flag, out_of_range
from share_jax.errors import InputError, message
from share_jax.sharding.mesh_shape import parse_mesh
from share_jax.train.start_from import StartFrom


def _commas(item: type) -> Any:
    """One argument "a,b,c" for a tuple."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{item.__name__.upper()},...",
        instance_from_str=lambda args: tuple(item(part) for part in args[0].split(",") if part),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(part, item) for part in value),
        str_from_instance=lambda value: [",".join(str(part) for part in value)],
    )


MAIN_EXPERIMENT, MAIN_PRESET = "queries10", "short"
"""What `make run` runs."""

Kind = TypeVar("Kind", bound=MethodNumbers)

Names = Annotated[tuple[str, ...], _commas(str)]
Numbers = Annotated[tuple[int, ...], _commas(int)]


_ONE = ("steps", "batch_size", "eval_batch_size", "save_every", "max_length", "rank", "accumulate", "image_size",
        "train_per_task", "test_per_task")  # fmt: skip
_LEAST = {**dict.fromkeys(_ONE, 1), "order_seed": 0}
"""The least value of a field, where it has one."""


@dataclass(frozen=True)
class Config:
    """Learns a stream of tasks one after another on a frozen model, with several methods, and reports."""

    experiment: str = MAIN_EXPERIMENT
    """Which stream of tasks: a file of experiments/config."""
    preset: Preset = "default"
    """Amount of work: quick is a smoke test, default the published table, full uses all data for longer; queries10 has
    short, too, which is the main job's."""
    protocol: Protocol | None = None
    """What is known of an example when it is answered: task gives its task's id; domain gives no id, and all tasks have
    the same outputs; class gives no id, and outputs grow with the tasks. The stream's own when None."""
    held_out: bool = False
    """Test on a fifth of the training examples, which are not trained on then: to choose rates without the test."""
    methods: Names = MAIN
    """What to compare, separated by commas."""
    seeds: Numbers = (0,)
    """Seeds of initialisation and data order, separated by commas."""
    workdir: Path = Path("runs") / MAIN_EXPERIMENT
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
    start_from: StartFrom = "zero"
    """Where a new task's own adapter starts: zero, the frozen model; last, a copy of the last task's. Heads start
    fresh; what goes on training from task to task does so in any case."""
    prefix_cache_bytes: int = 4 * 2**30
    """Memory for the outputs of what is frozen below the first adapted layer; what does not fit lies in files of the
    workdir."""
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
    adam_b2: float = 0.999
    """Decay of AdamW's mean of squared gradients; 1 / (1 - it) updates are what it looks back on."""
    clip_norm: float = 1.0
    """Global norm at which the gradients of what trains are clipped."""
    save_every: int = 200
    """Updates between checkpoints of the training in flight."""

    numbers: tyro.conf.Suppress[tuple[MethodNumbers, ...]] = ()
    """What only some methods read; a method whose numbers are not here has its defaults."""

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
    """Seeds what a stream draws: the order of its tasks, where it has none of its own, its subsets, and what it holds
    out; the same for every run of a table."""
    task_order: int | None = None
    """Which published order of the tasks, for a stream that has several, as olora has 1 to 6; its usual one if None."""
    cache_dir: Path | None = None
    """Where weights and texts are kept; $SHARE_JAX_CACHE or the user's cache folder when None."""
    compile_cache: Path | None = None
    """Where compiled programs are kept, so that a second run of one configuration compiles nothing; nowhere if None."""
    data_folder: Path | None = None
    """Where the data are: of texts, images and prompts, one's own (experiments/config/texts.py, images.py and
    prompts.py); of olora, O-LoRA's; CLINC150's folder
    with data_full.json and domains.json, from TensorFlow Datasets when None; Fashion-MNIST's with its four files, or
    TensorFlow Datasets', from Debian's package dataset-fashion-mnist when None; for the streams of
    experiments/streams/tfds.md, a folder of prepared sets, their default when None."""
    weights: Path | None = None
    """Pretrained weights of the image and GLUE streams: ViT as .npz or a Hugging Face folder, RoBERTa as a folder. Of
    queries10, code10, olora and prompts, a decoder as a Hugging Face folder or a GGUF file; SmolLM2-135M when None."""
    image_size: int = 224
    """Pixels a side of the images; places are interpolated where the checkpoint has another size."""

    def __post_init__(self) -> None:
        """Checks what the types cannot."""
        unknown = [name for name in self.methods if name not in method_names()]
        if unknown or not self.methods:
            expected = f"some of {', '.join(method_names())}"
            raise ConfigError(message("--methods", got=unknown or "none", expected=expected, fix="check the name"))
        for name in ("weights", "task_order"):
            if (own := getattr(self, name)) is not None and name not in experiment(self.experiment).reads:
                expected = f"none: {self.experiment} does not read it"
                raise ConfigError(message(flag(name), got=own, expected=expected, fix="leave it out"))
        if len(set(self.methods)) != len(self.methods):
            raise ConfigError(message("--methods", got=self.methods, expected="each only once", fix="name it once"))
        if ID_ALONE in self.methods and protocol_of(self.experiment, self.protocol) != "task":
            got, expected = ID_ALONE, "methods that need no task id"
            raise ConfigError(
                message("--methods", got=got, expected=expected, fix="leave it out, or add --protocol task")
            )
        for name, least in _LEAST.items():
            if (own := getattr(self, name)) is not None and own < least:
                raise out_of_range(name, own, f"at least {least}", "raise it")
        for name, fix in (("prefetch", "pass 0 or 2"), ("prefix_cache_bytes", "pass 0 to use files alone")):
            if getattr(self, name) < 0:
                raise out_of_range(name, getattr(self, name), "at least 0", fix)
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
        for each in self.numbers:
            each.check_batches(parts)
        if not 0 <= self.adam_b2 < 1:
            raise out_of_range("adam_b2", self.adam_b2, "at least 0 and below 1", "pass 0.999")
        if not 0 <= self.head_first < 1:
            raise ConfigError(
                message("--head-first", got=self.head_first, expected="at least 0 and below 1", fix="pass 0.5 or less")
            )
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds or min(self.seeds) < 0:
            expected = "different whole numbers of at least 0"
            raise ConfigError(message("--seeds", got=self.seeds, expected=expected, fix="--seeds 0,1,2"))
        if self.repair and not self.resume:
            raise ConfigError(message("--repair", got="no --resume", expected="both", fix="add --resume"))
        if self.resume and self.overwrite:
            raise ConfigError(
                message("--resume and --overwrite", got="both", expected="at most one", fix="leave one of them out")
            )

    def of(self, kind: type[Kind]) -> Kind:
        """A method's own numbers."""
        return next((each for each in self.numbers if isinstance(each, kind)), kind())


def changed(config: Config, **values: Any) -> Config:
    """The configuration with other values of its fields, or of those of a method's numbers.

    >>> changed(preset("digits5", "quick"), steps=3, buffer_size=9).steps
    3

    Raises:
        ConfigError: there is no such field, or a value is out of range.
    """
    numbers = []
    for kind in numbers_of():
        own = {name: values.pop(name) for name in fields_of(kind) & values.keys()}
        numbers.append(replace(config.of(kind), **own))
    if unknown := values.keys() - {each.name for each in fields(Config)}:
        expected = "a field of the run or of a method"
        raise ConfigError(message(flag(min(unknown)), got="no such flag", expected=expected, fix="check its name"))
    return replace(config, numbers=tuple(numbers), **values)


def value(config: Config, name: str) -> Any:
    """The value of a field of the run, or of a method's numbers.

    >>> value(preset("digits5", "quick"), "ewc_strength")
    10000.0
    """
    kind = next((kind for kind in numbers_of() if name in fields_of(kind)), None)
    return getattr(config if kind is None else config.of(kind), name)


def preset(name: str, amount: Preset, protocol: Protocol | None = None) -> Config:
    """The configuration of an experiment at a preset, under a protocol.

    >>> preset("digits5", "quick").steps
    40

    Raises:
        ConfigError: there is no such experiment, or it has no such preset.
    """
    presets = experiment(name).presets
    if amount not in presets:
        expected = ", ".join(presets)
        raise ConfigError(message(f"--preset of {name}", got=amount, expected=expected, fix="choose one of them"))
    holds, own = protocol_of(name, protocol), protocol_of(name)
    parts = {name: True, amount: amount != "default", holds: holds != own}
    plain = Config(
        experiment=name,
        preset=amount,
        protocol=protocol,
        methods=experiment(name).methods or tuple(each for each in MAIN if each != ID_ALONE or holds == "task"),
        workdir=Path("runs") / "-".join(part for part, told in parts.items() if told),
    )
    return changed(plain, **{**tuned(name, holds), **presets[amount]})


def parse(argv: Sequence[str]) -> Config:
    """Reads a command line: --experiment, --preset and --protocol choose the defaults, every flag changes one field.

    Without --experiment it is the main job, at its own preset.

    Raises:
      ConfigError: if a value is out of range or the flags contradict each other.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--experiment", default=None)
    first.add_argument("--preset", default=None)
    first.add_argument("--protocol", default=None)
    chosen, _ = first.parse_known_args(argv)
    usual = MAIN_PRESET if chosen.experiment is None else "default"
    amount = chosen.preset if chosen.preset in get_args(Preset) else usual
    protocol = chosen.protocol if chosen.protocol in get_args(Protocol) else None
    default = preset(chosen.experiment or MAIN_EXPERIMENT, amount, protocol)
    kinds = {kind.__name__: kind for kind in numbers_of()}
    flat = {name: Annotated[kind, tyro.conf.arg(name="")] for name, kind in {"run": Config, **kinds}.items()}
    flags: Any = make_dataclass("Flags", flat.items(), frozen=True)
    told = f"{Config.__doc__}\n\nExperiments: {', '.join(experiments())}. Methods: {', '.join(method_names())}."
    plain = flags(default, *(default.of(kind) for kind in kinds.values()))
    found = tyro.cli(flags, args=list(argv), default=plain, prog="python -m experiments.run", description=told)
    return replace(found.run, numbers=tuple(getattr(found, name) for name in kinds))


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    """Name and value of every flag, in the order of a command."""
    numbers = [config.of(kind) for kind in numbers_of()]
    for each in fields(config):
        if each.name != "numbers":
            yield each.name, getattr(config, each.name)
        for own in numbers:
            if own.behind == each.name:
                yield from ((one.name, getattr(own, one.name)) for one in fields(own))


def command_line(config: Config) -> str:
    """The command that repeats a run, without the paths of the machine that it ran on: FOLDER stands for that of its
    data, and weights are told by the last part of their path.

    A run on held-out examples is what a baseline's numbers are chosen by: its command names them all, so that it stays
    what it is when the presets take over what was chosen.
    """
    told = {name for kind in numbers_of(PUBLISHED) for name in fields_of(kind)} if config.held_out else set()
    usual = dict(_values(preset(config.experiment, config.preset, config.protocol))) | {"protocol": None}
    words = ["python -m experiments.run", f"--experiment {config.experiment}", f"--preset {config.preset}"]
    paths = {"workdir", "cache_dir", "resume", "overwrite", "repair", "quiet", "distributed"}
    paths |= {"experiment", "preset", "scalars", "prefix_cache_bytes", "compile_cache"}
    for name, own in _values(config):
        if name in paths or (own == usual[name] and (own is None or name not in told)):
            continue
        words.append(flag(name) if own is True else f"{flag(name)} {_shown(name, own)}")
    return " ".join(words)


def _shown(name: str, own: Any) -> str:
    """A value as a command has it."""
    if name == "data_folder":
        return DATA.partition(" ")[2]
    if name == "weights":
        return shlex.quote(Path(own).absolute().name)
    return ",".join(map(str, own)) if isinstance(own, tuple) else str(own)


if __name__ == "__main__":
    print(command_line(parse(sys.argv[1:])))
