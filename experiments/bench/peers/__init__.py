"""What runs in the peers' own environment: torch, transformers, peft, lorashare and vlora, but no JAX."""
