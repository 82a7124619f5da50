"""Flax: modules, target patterns, and adapting an unmodified model."""
