"""How whole attentions combine: gated branches (Sum), heads that differ (ByHead), a low-rank product (LowRank).

A composite is not a Mechanism: it has no single row of scores. It is computed by computing what it is made of.
"""

from regard.composite.by_head import ByHead, heads_of
from regard.composite.low_rank import LowRank, pseudo_inverse, segment_means
from regard.composite.sums import Gates, Sum

__all__ = ["ByHead", "Gates", "LowRank", "Sum", "heads_of", "pseudo_inverse", "segment_means"]
