"""Array annotations are jaxtyping's where it is loaded to check them, and cost a command nothing elsewhere."""

import subprocess
import sys

import pytest

CASES = {
    "with jaxtyping": "import jaxtyping; from share_jax.annotations import Float; assert Float is jaxtyping.Float",
    "without": (
        "import sys, numpy as np; from share_jax.annotations import Float; import share_jax.subspace.merging;"
        "assert 'jaxtyping' not in sys.modules; assert Float[np.ndarray, 'd r'].__metadata__ == ('d r',)"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_jaxtyping_is_used_where_it_is_loaded(case: str) -> None:
    done = subprocess.run([sys.executable, "-c", CASES[case]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
