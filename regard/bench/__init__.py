"""Benchmarks: each against its peers in one run, checked for correctness first."""
