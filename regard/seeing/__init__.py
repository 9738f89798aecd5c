"""Seeing: the statistics of exact weights, the Trace that holds them, and measures read off a Trace."""
