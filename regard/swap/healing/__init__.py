"""Healing: a swapped model learns to predict as it did before."""
