"""Tasks beside translation: classify, look, listen, caption, answer, summarise; their models, training and scores.

A task is a `Kind` in any file of `kinds/` and is found there. Importing this package loads nothing.
"""
