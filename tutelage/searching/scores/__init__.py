"""The scores, one in each file. Importing this package registers them all."""

from tutelage.searching.scores.depth import Depth
from tutelage.searching.scores.diswot import DisWOT
from tutelage.searching.scores.multiply_adds import MultiplyAdds
from tutelage.searching.scores.parameters import Parameters

__all__ = ["Depth", "DisWOT", "MultiplyAdds", "Parameters"]
