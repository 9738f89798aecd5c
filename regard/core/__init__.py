"""The closed core: the small vocabulary that fast backends understand.

Parts of a mechanism and statistics are open: anyone may write one in torch. Those that restate themselves in these
records run on every fast backend. A record is data only; a backend matches records and never calls a part. A new
record is a deliberate change to what every backend accepts.
"""

from regard.core.layout import DENSE, Dense, Layout, Paged, Ragged
from regard.core.plan import Plan, Refusal, Watch
from regard.core.statistics import (
    ColumnMass,
    CoreStatistic,
    DistanceHistogram,
    Pool,
    RowDistance,
    RowEntropy,
    RowMatch,
    RowMax,
    RowSum,
    TopK,
)
from regard.core.terms import Distance, Dot, KeyBias, Slope, Softcap, Softmax, Table, Term, WeightedSum

__all__ = [
    "DENSE",
    "ColumnMass",
    "CoreStatistic",
    "Dense",
    "Distance",
    "DistanceHistogram",
    "Dot",
    "KeyBias",
    "Layout",
    "Paged",
    "Plan",
    "Pool",
    "Ragged",
    "Refusal",
    "RowDistance",
    "RowEntropy",
    "RowMatch",
    "RowMax",
    "RowSum",
    "Slope",
    "Softcap",
    "Softmax",
    "Table",
    "Term",
    "TopK",
    "Watch",
    "WeightedSum",
]
