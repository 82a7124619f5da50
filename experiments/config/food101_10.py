"""food101_10: Food-101 in ten tasks of 10 or 11 classes, on a vision transformer of one's own weights.

    python -m experiments.run --experiment food101_10 --data-folder FOLDER --weights WEIGHTS --bf16

Result and wall time: not run where this was written; published figures stand in `experiments/streams/tfds.md`.
"""

from experiments.config.large_images import large_images

EXPERIMENT = large_images("food101_10")
