"""`python -m share_jax.cli`: the command `share-jax`."""

import sys

from share_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
