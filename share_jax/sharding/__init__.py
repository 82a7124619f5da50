"""Meshes of devices, where arrays lie on them, and batches in parts.

`mesh_shape` and `mesh` make the mesh; `rules` says which axis of which leaf is split, and `layout` what follows for
every array of a train step; `placement` puts arrays onto the mesh; `microbatches` splits a batch for accumulation;
`gathered_weights` makes weights whole where they are used; `compiled_memory` reads what a compiled step needs. Which
sides of a kernel a leaf lies along is said by its method (`LeafSpec`), where those go by `rules`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
