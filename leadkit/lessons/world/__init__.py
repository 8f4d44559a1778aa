"""A made world in which layer features must help, its twin in which they cannot, and students."""

from leadkit.lessons.world.made import (
    DROWNED,
    GROUPS,
    KNOWS_ALL,
    LOUD,
    WORLDS,
    Data,
    Layer,
    World,
    make,
)
from leadkit.lessons.world.students import (
    BLOCKS,
    METHODS,
    Student,
    ahead,
    mrr,
    reciprocal_ranks,
    train,
)

__all__ = [
    "BLOCKS",
    "DROWNED",
    "GROUPS",
    "KNOWS_ALL",
    "LOUD",
    "METHODS",
    "WORLDS",
    "Data",
    "Layer",
    "Student",
    "World",
    "ahead",
    "make",
    "mrr",
    "reciprocal_ranks",
    "train",
]
