"""The interactive parts of the notebooks."""

from leadkit.lessons.widgets.ledger import claims_ledger, matching
from leadkit.lessons.widgets.toolkit import Picture, explore, png, search_box, show
from leadkit.lessons.widgets.training import Training, dev_sample
from leadkit.lessons.widgets.world import made_world

__all__ = [
    "Picture",
    "Training",
    "claims_ledger",
    "dev_sample",
    "explore",
    "made_world",
    "matching",
    "png",
    "search_box",
    "show",
]
