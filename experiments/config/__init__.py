"""What a run is told: its fields, and one file per experiment with its presets, its stream and its model."""
