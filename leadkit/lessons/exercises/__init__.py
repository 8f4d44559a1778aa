"""Checks of the exercises, a module per lesson.

Each says what is wrong with an answer, never what is right.
"""

from leadkit.lessons.exercises.ablations import equal_things, queries_needed, released_parts
from leadkit.lessons.exercises.assistants import farther_together, share_lost, weighted_fusion
from leadkit.lessons.exercises.full_training import ignorant_loss, paired_p, spread_of_difference
from leadkit.lessons.exercises.joint_training import kl_gradients, lead_total, without_teacher_loss
from leadkit.lessons.exercises.layer_features import kl_limit, peaked_entropy, swapped_map
from leadkit.lessons.exercises.progressive_distillation import lagging, stops_at, trained_anew
from leadkit.lessons.exercises.random_selection import mean_teacher, nearest_pairs, steps_to_cover
from leadkit.lessons.exercises.reweighting import same_voices, shares, worst_query
from leadkit.lessons.exercises.unified_view import index_bytes, not_symmetric, query_padding
from leadkit.lessons.exercises.world import whose_student

__all__ = [
    "not_symmetric",
    "query_padding",
    "index_bytes",
    "kl_limit",
    "peaked_entropy",
    "swapped_map",
    "mean_teacher",
    "steps_to_cover",
    "nearest_pairs",
    "shares",
    "worst_query",
    "same_voices",
    "kl_gradients",
    "without_teacher_loss",
    "lead_total",
    "whose_student",
    "ignorant_loss",
    "paired_p",
    "spread_of_difference",
    "released_parts",
    "equal_things",
    "queries_needed",
    "stops_at",
    "trained_anew",
    "lagging",
    "farther_together",
    "weighted_fusion",
    "share_lost",
]
