"""The checks of lesson 05's made world: a prediction, and trained students that judge it."""

from collections.abc import Mapping
from functools import cache

from leadkit.lessons.exercises.answers import NOT_YET, Wrong, blank, exercise
from leadkit.lessons.world import (
    DROWNED,
    KNOWS_ALL,
    LOUD,
    METHODS,
    Layer,
    World,
    ahead,
    make,
    mrr,
    train,
)

WORDS = ("LEAD", "RD", "neither")
SEEDS = 2
PUZZLES = {
    "early": World((KNOWS_ALL, KNOWS_ALL, *4 * (DROWNED,))),
    "half": World(6 * (Layer((1, 2)),)),
    "loud": World((*5 * (LOUD,), KNOWS_ALL)),
}


@exercise(lesson=5, number=4, grade="medium")
def whose_student(predicted: object) -> None:
    """Whose student is ahead in three other worlds. Students of both methods are trained.

    predicted: name of a world -> "LEAD", "RD" or "neither".
    """
    if blank(predicted):
        raise Wrong(NOT_YET)
    if not isinstance(predicted, Mapping) or predicted.keys() != PUZZLES.keys():
        raise Wrong(f"predicted must name each of the worlds {', '.join(PUZZLES)} once")
    for name, word in predicted.items():
        if blank(word):
            raise Wrong(NOT_YET)
        if not isinstance(word, str) or word not in WORDS:
            raise Wrong(f"{name} is {word!r}: say one of {', '.join(WORDS)}")
    for name, word in predicted.items():
        lead, rd = _students(name)
        if word != ahead(lead, rd):
            raise Wrong(f"in the world {name!r} LEAD's students reach {lead:.0f} and RD's {rd:.0f}")


@cache
def _students(name: str) -> tuple[float, float]:
    """MRR@10 in percent of LEAD's and of RD's students in a world, means over the seeds."""
    found = []
    for seed in range(SEEDS):
        data = make(PUZZLES[name], seed)
        pair = [mrr(train(data, METHODS[method], seed), data) for method in ("LEAD", "RD")]
        found.append(pair)
    lead, rd = (sum(values) / SEEDS for values in zip(*found, strict=True))
    return lead, rd
