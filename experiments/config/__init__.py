"""What a run is told: its fields, and one file per experiment with its presets, its stream and its model.

`experiment` finds the experiments: a new one is a file here that holds an `EXPERIMENT`. `image_stream`, `large_images`
and `text_stream` are what several of them share. `run_config` has the fields of every run and the command line;
`methods` lists the methods by name, `numbers` makes flags of each method's own numbers, and `command_words` knows the
places in a command.
"""
