"""Input pipelines: Grain over arrays, texts and TFDS sources, each batch a function of its step.

`sources` is where examples come from, `tfds_sets` those of TFDS, `images` how pictures are read, `lazy` rows that are
read when they are asked for. `pipeline` makes batches, in the order of `batch_order` and the shapes of `shapes`.
"""
