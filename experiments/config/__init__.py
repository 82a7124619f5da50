"""What a run is told: its fields, presets, and the numbers of the baselines."""
