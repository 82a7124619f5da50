"""The commands of `share-jax`, one file each."""
