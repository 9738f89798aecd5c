"""Engines that compute a mechanism: the reference, the strips, and the fast backends for the closed core."""
