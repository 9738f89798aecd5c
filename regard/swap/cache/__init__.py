"""Caches whose key-value heads keep what a policy says, each in pages of its own."""
