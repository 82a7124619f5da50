"""Settings that hold for every test: strict ranks, typed shapes, 8 virtual CPU devices."""

import os

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
