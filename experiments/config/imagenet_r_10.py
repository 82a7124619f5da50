"""imagenet_r_10: ImageNet-R in ten tasks of 20 classes, on a vision transformer of one's own weights.

    python -m experiments.run --experiment imagenet_r_10 --protocol class --data-folder FOLDER --weights WEIGHTS --bf16

Result and wall time: not run where this was written; published figures stand in `experiments/streams/tfds.md`.
"""

from experiments.config.large_images import large_images

EXPERIMENT = large_images("imagenet_r_10")
