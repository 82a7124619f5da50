"""The methods that are compared, ours and published baselines: one file each, on one loop.

Methods are the files that `experiments.config.methods` lists. The rest is what they share: `job` is what a method is
given, `plan` what it says of itself, `loop` the stream task after task, `stream_state` and `store` how far that has
come and its checkpoint, `hooks` what is done beside the steps. `objective`, `batches`, `replay` and `heads` feed the
training; `evaluation`, `scoring`, `token_scoring`, `logits_cache` and `kept_adapters` fill the accuracy matrix.
"""
