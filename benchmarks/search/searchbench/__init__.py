"""What the benchmark of the searchers is made of; the commands stand beside it."""
