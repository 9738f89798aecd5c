"""Benchmarks, each against its peers in one run."""
