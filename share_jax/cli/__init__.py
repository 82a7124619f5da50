"""The command `share-jax`: one file per command, and what commands share.

Each command's file has its parser and its `run`; `main` lists the commands; `options` has what their parsers share,
`output_folder` where a command may write, `report` and `table` the figures that they print. A new command is a new
file and a line in `main`. No algebra stands here, and no command loads JAX. Public is the command, no Python name.
"""
