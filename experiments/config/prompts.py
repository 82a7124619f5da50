"""prompts: a user's own JSONL files, one for each task, on a decoder, SmolLM2-135M.

    python -m experiments.run --experiment prompts --data-folder FOLDER
    python -m experiments.run --experiment prompts --data-folder FOLDER --weights MODEL --first-layer 12

`experiments.streams.prompt_folder` says what the files hold. Prompts with completions, and chats, are scored by the
whole completion, texts alone in bits per byte. `--weights` takes another decoder, a Hugging Face folder or a GGUF file;
`--first-layer` is then the lowest layer to adapt. Result and wall time: they are those of the data.
"""

from experiments.assets import SMOLLM2
from experiments.config.experiment import Experiment
from experiments.config.run_config import Config
from experiments.config.text_stream import limits
from experiments.config.token_parts import RATES, SMOKE, token_backbone, token_stream
from experiments.streams.base import Stream
from experiments.streams.prompt_folder import prompt_folder

OWN = {**RATES, "max_length": 256, "length_buckets": (32, 48, 64, 96, 128, 192)}


def stream(config: Config) -> Stream:
    """The folder's files as tokens."""
    return token_stream(config, prompt_folder(config.data_folder, **limits(config)))


EXPERIMENT = Experiment(
    "prompts",
    {"quick": {**OWN, **SMOKE}, "default": OWN, "full": {**OWN, "first_layer": 20, "steps": 240, "max_length": 512}},
    stream,
    token_backbone,
    methods=("shared_a", "sequential_lora", "frozen"),
    assets=(SMOLLM2,),
    reads=("weights",),
)
