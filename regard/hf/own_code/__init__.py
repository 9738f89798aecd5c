"""The second seam: attention that a transformers model computes in its own code, seen where its weights are made.

`enter.watching(model, sink)` hands every attention of such modules to `sink` as a `Seen` (exact weights, row by row)
or, where it stays uncertain which tensor the attention is, as a `Doubt` with the reason. Nothing else is watched, and
no bit of the output changes. `absorb.absorb` folds a Seen into statistics.
"""
