"""The methods that are compared, ours and published baselines: one file each, on one loop."""
