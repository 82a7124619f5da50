from .basis import Spectrum as Spectrum
from .basis import orthonormal as orthonormal
from .basis import rank_tolerance as rank_tolerance
from .gram import gram_basis as gram_basis
from .gram import symmetric_basis as symmetric_basis
from .rank_selection import k_by_explained_variance as k_by_explained_variance
from .rank_selection import k_by_relative_error as k_by_relative_error
from .rank_selection import tail_energies as tail_energies
