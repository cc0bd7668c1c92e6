"""Side-by-side timings against peers: ``make bench``, or ``python -m tests.benchmarks [ROW ...]``."""
