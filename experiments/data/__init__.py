"""Input pipelines: Grain over arrays, texts and TFDS sources, each batch a function of its step."""
