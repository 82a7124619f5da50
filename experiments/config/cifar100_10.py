"""cifar100_10: CIFAR-100 in ten tasks of ten classes, on a vision transformer of one's own weights.

    python -m experiments.run --experiment cifar100_10 --protocol class --data-folder FOLDER --weights WEIGHTS --bf16

Result and wall time: not run where this was written; published figures stand in `experiments/streams/tfds.md`.
"""

from experiments.config.large_images import large_images

EXPERIMENT = large_images("cifar100_10")
