"""What the study varies: the number of tasks, how k is chosen, and where the LoRAs start."""

from share_jax.subspace.rank_choice import Choice

COUNTS = (10, 25, 50, 100, 200)
FIXED = (8, 16, 32, 64)
CHOICES = {
    **{f"k = {k}": Choice(k=k) for k in FIXED},
    "99 % explained variance": Choice(explained_variance=0.99),
    "error at most 0.1": Choice(max_error=0.1),
}
"""How k is chosen; the last two let it grow."""
TOGETHER = 10
"""Tasks that are merged at once where k grows: every new k is a new shape to compile."""
ALL = tuple(CHOICES)
PARTS = {
    "fixed": tuple(name for name in ALL if CHOICES[name].k is not None),
    "growing": tuple(name for name in ALL if CHOICES[name].k is None),
}
STARTS = {"own": "each LoRA from an A of its own", "one": "all LoRAs from one A"}
TRAIN, TEST, TOKENS = 30, 15, 12
"""Texts of each class to learn from and to be tested on, and tokens of a text."""
