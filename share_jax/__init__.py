"""Continual learning of many tasks in one shared low-rank subspace of a frozen JAX/Flax model.

What is public stands in `__init__.pyi`, here and in every room (each folder below); docs/public.md lists it. Names are
loaded when they are first used, so that `import share_jax` costs nothing.

Beside the rooms stand `adapting` (one `adapt` for every module system), `adapted` (the protocol of an adapted model),
`adapted_trees` (what such a model does with its trees), `model_inputs` (its inputs as one tree), `trees` (nested dicts
by path), `metrics` (measures of continual learning), `errors` (what a user can meet), `number_checks` (numbers that a
caller or a file gives), `typing` (the names of dimensions), and `annotations` (arrays with dtype and shape).
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
