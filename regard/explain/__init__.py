"""`regard explain`: any mechanism of the catalogue, or any text form, worked through on a sentence.

`explain` is a pure function from a name to an Explanation; terminal, page, image and docs only draw that.
"""

from regard.explain.build import explain, listing
from regard.explain.record import Explanation, Panel, Part, Step

__all__ = ["Explanation", "Panel", "Part", "Step", "explain", "listing"]
