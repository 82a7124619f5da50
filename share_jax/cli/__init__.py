"""The command `share-jax`: one file per command, and what commands share.

Each command's file has its parser and its `run`; `main` lists the commands; `options` has what their parsers share,
`inputs` what they read, `output_folder` where they may write, `report`, `table`, `heatmap`, `error_plot` and
`advice_text` what they print and draw. A new command is a new file and a line in `main`. No algebra stands here. No
command loads JAX, unless it is given a bank. Public is the command, no Python name.
"""
