"""The figures of the lessons, by what they are about."""

from leadkit.lessons.figures.layers import gradient_cosines, layer_bars, layer_curves, towers
from leadkit.lessons.figures.matrices import frame, heat, token_map
from leadkit.lessons.figures.one_page import napkin
from leadkit.lessons.figures.outcomes import (
    against_cost,
    condition_map,
    main_table,
    score_sizes,
)
from leadkit.lessons.figures.plots import (
    ASSISTANT,
    NEUTRAL,
    PALETTE,
    STUDENT,
    TEACHER,
    bars,
    distributions,
    label_ends,
    lines,
    smooth,
    style,
)
from leadkit.lessons.figures.rankings import rank_lines
from leadkit.lessons.figures.schemes import assistance, progression
from leadkit.lessons.figures.trainings import choices, training
from leadkit.lessons.figures.verdicts import differences, primary, verdicts
from leadkit.lessons.figures.worlds import assisted_gains, learnt, teacher_layers, world_differences

__all__ = [
    "ASSISTANT",
    "NEUTRAL",
    "PALETTE",
    "STUDENT",
    "TEACHER",
    "against_cost",
    "assistance",
    "assisted_gains",
    "bars",
    "choices",
    "condition_map",
    "differences",
    "distributions",
    "frame",
    "gradient_cosines",
    "heat",
    "label_ends",
    "layer_bars",
    "layer_curves",
    "learnt",
    "lines",
    "main_table",
    "napkin",
    "primary",
    "progression",
    "rank_lines",
    "score_sizes",
    "smooth",
    "style",
    "teacher_layers",
    "token_map",
    "towers",
    "training",
    "verdicts",
    "world_differences",
]
