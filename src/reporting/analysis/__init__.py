"""Numbers out of a grid: rates, parts, trade-offs, replicates."""
