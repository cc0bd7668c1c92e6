"""What the entry points call: configuration in, training runs, cells and reports out. The only rooms that know Hydra
are this one and the entry points."""
