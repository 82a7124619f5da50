"""images3: Food-101, Caltech-101 and Flowers as three tasks, on a vision transformer of one's own weights.

    python -m experiments.run --experiment images3 --data-folder FOLDER --weights WEIGHTS --bf16

Result and wall time: not run where this was written; published figures stand in `experiments/streams/tfds.md`.
"""

from experiments.config.large_images import large_images

EXPERIMENT = large_images("images3", steps=2000)
