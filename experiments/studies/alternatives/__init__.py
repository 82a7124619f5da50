"""Other forms of the same computations, raced against those the library has."""
