"""The figures of the lessons, by what they are about."""

from leadkit.lessons.figures.layers import gradient_cosines, layer_bars, towers
from leadkit.lessons.figures.matrices import frame, heat, token_map
from leadkit.lessons.figures.outcomes import (
    against_cost,
    agreement,
    condition_map,
    main_table,
    verdicts,
)
from leadkit.lessons.figures.plots import (
    PALETTE,
    STUDENT,
    TEACHER,
    bars,
    distributions,
    lines,
    smooth,
    style,
)
from leadkit.lessons.figures.rankings import rank_lines
from leadkit.lessons.figures.trainings import choices, gaps, training
from leadkit.lessons.figures.worlds import learnt, teacher_layers, world_differences

__all__ = [
    "PALETTE",
    "STUDENT",
    "TEACHER",
    "against_cost",
    "agreement",
    "bars",
    "choices",
    "condition_map",
    "distributions",
    "frame",
    "gaps",
    "gradient_cosines",
    "heat",
    "layer_bars",
    "learnt",
    "lines",
    "main_table",
    "rank_lines",
    "smooth",
    "style",
    "teacher_layers",
    "token_map",
    "towers",
    "training",
    "verdicts",
    "world_differences",
]
