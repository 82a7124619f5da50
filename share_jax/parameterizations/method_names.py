"""The methods that a user chooses among by name; no JAX is loaded for it."""

NAMES = ("shared_a", "separate", "share")
"""Of `built_in.BUILT_IN`; the first is the usual one."""
