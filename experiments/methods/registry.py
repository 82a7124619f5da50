"""The methods by name. A module is imported when its method runs."""

from importlib import import_module

from experiments.methods.job import Job, Outcome

_HOME = {
    "shared_a": ("shared_a", "run"),
    "share": ("share", "run"),
    "share_coefficients": ("share", "run_coefficients"),
    "separate_lora": ("separate_lora", "run"),
    "sequential_lora": ("sequential_lora", "run"),
    "sequential_lora_heads": ("sequential_lora", "run_heads"),
    "frozen_head": ("frozen_head", "run"),
    "joint": ("joint", "run"),
    "majority": ("majority", "run"),
}


def run_method(job: Job) -> Outcome:
    """Runs the job's method."""
    module, function = _HOME[job.name]
    return getattr(import_module(f"experiments.methods.{module}"), function)(job)
