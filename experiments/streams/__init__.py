"""Streams of tasks, one file each; a user's own come from `image_folder`, `text_folder` and `prompt_folder`.

`base` says what a stream is, `checks` what a task has to be, `protocols` shows one stream under three protocols,
`records` makes streams of TFDS data sets. Which presets and model go with a stream stands in `experiments.config`.
"""
