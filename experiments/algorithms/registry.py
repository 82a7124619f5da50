"""The methods by name. A module is imported when its method runs."""

from importlib import import_module

from experiments.algorithms.job import Job, Outcome

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
    "full_finetune": ("full_finetune", "run"),
    "houlsby_adapters": ("houlsby_adapters", "run"),
    "houlsby_adapters_sequential": ("houlsby_adapters", "run_sequential"),
    "ewc_lora": ("ewc_lora", "run"),
    "lwf_lora": ("lwf_lora", "run"),
    "er_lora": ("er_lora", "run"),
    "der_lora": ("der_lora", "run"),
    "o_lora": ("o_lora", "run"),
    "inflora": ("inflora", "run"),
    "sd_lora": ("sd_lora", "run"),
    "l2p": ("l2p", "run"),
}


def run_method(job: Job) -> Outcome:
    """Runs the job's method."""
    module, function = _HOME[job.name]
    return getattr(import_module(f"experiments.algorithms.{module}"), function)(job)
