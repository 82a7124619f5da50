"""How many tasks fit into one subspace."""
