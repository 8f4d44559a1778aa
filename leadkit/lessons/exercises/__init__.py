"""The exercises: a check per exercise, a module per lesson.

A check says what is wrong with an answer, never what is right.
"""

from leadkit.lessons.exercises.ablations import equal_things, queries_needed, released_parts
from leadkit.lessons.exercises.answers import Exercise
from leadkit.lessons.exercises.assistants import farther_together, share_lost, weighted_fusion
from leadkit.lessons.exercises.full_training import ignorant_loss, paired_p, spread_of_difference
from leadkit.lessons.exercises.joint_training import kl_gradients, lead_total, without_teacher_loss
from leadkit.lessons.exercises.layer_features import feature_loss, kl_limit, swapped_map
from leadkit.lessons.exercises.progressive_distillation import lagging, stops_at
from leadkit.lessons.exercises.random_selection import draw_layers, mean_teacher, nearest_pairs
from leadkit.lessons.exercises.reweighting import layer_loss, same_voices, weights_of_layers
from leadkit.lessons.exercises.unified_view import layer_scores, not_symmetric, query_padding
from leadkit.lessons.exercises.world import whose_student

__all__ = [
    "layer_scores",
    "not_symmetric",
    "query_padding",
    "feature_loss",
    "kl_limit",
    "swapped_map",
    "draw_layers",
    "mean_teacher",
    "nearest_pairs",
    "weights_of_layers",
    "layer_loss",
    "same_voices",
    "lead_total",
    "kl_gradients",
    "without_teacher_loss",
    "whose_student",
    "ignorant_loss",
    "paired_p",
    "spread_of_difference",
    "released_parts",
    "equal_things",
    "queries_needed",
    "stops_at",
    "lagging",
    "farther_together",
    "weighted_fusion",
    "share_lost",
]

# By name, in the order of the lessons.
EXERCISES: dict[str, Exercise] = {name: globals()[name] for name in __all__}
