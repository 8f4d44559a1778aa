"""Assistants in the made world: how far one is from the teacher, and what its student gains.

Two teachers: one knows all four topics, the other knows two of them. Teacher and assistant are
layers of `made`, so we decide what each of them knows. S seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from torch import Generator, Tensor

from leadkit import companion_losses, losses
from leadkit.lessons.world import students
from leadkit.lessons.world.made import KNOWS_ALL, Data, Layer, World, make
from leadkit.results import tried
from leadkit.results.statistics import Estimate

TEACHERS = {"all topics": KNOWS_ALL, "topics 1 and 2": Layer((1, 2))}
ASSISTANTS = {
    "1 2 3 4": KNOWS_ALL,
    "1 2 3": Layer((1, 2, 3)),
    "1 2": Layer((1, 2)),
    "1": Layer((1,)),
    "3 4": Layer((3, 4)),
    "1 2 3 4, distracted": Layer(distraction=0.5),
    "1 2, distracted": Layer((1, 2), distraction=0.5),
}  # the topics that an assistant knows
QUESTION = "assistants, made world"  # in tried.jsonl
DISTANCE, GAIN = "distance to the teacher, nats", "gain over RD, points of MRR@10"


def assisted(student: Tensor, teacher: Tensor, positive: Tensor, generator: Generator) -> Tensor:
    """A method for `students.train`: layer 1 of `teacher` (2, B, C) teaches, layer 2 assists."""
    asked = [losses.response_loss(student[-1], scores, positive) for scores in teacher]
    return companion_losses.assisted_loss(*asked).total


def pair(teacher: Layer, assistant: Layer, seed: int) -> Data:
    """A world of a teacher and an assistant."""
    return make(World((teacher, assistant)), seed)


def distance(data: Data) -> float:
    """KL divergence of the assistant from the teacher, nats, a mean over the training queries."""
    return float(losses.kl(*data.teacher).mean())


def learn(
    seeds: Sequence[int], tell: Callable[[str], None] = print
) -> dict[str, dict[str, list[float]]]:
    """Train a student per seed with RD and with each pair: setting -> measure -> (S,)."""
    measured = {}
    for name, teacher in TEACHERS.items():
        alone = [
            taught(make(World((teacher,)), seed), students.METHODS["RD"], seed) for seed in seeds
        ]
        for known, assistant in ASSISTANTS.items():
            worlds = [pair(teacher, assistant, seed) for seed in seeds]
            values = [
                taught(data, assisted, seed) for data, seed in zip(worlds, seeds, strict=True)
            ]
            gains = [value - rd for value, rd in zip(values, alone, strict=True)]
            far = [distance(data) for data in worlds]
            measured[setting(name, known)] = {
                DISTANCE: [round(value, 4) for value in far],
                GAIN: [round(value, 3) for value in gains],
            }
            tell(f"{setting(name, known)}: {np.mean(far):.2f} nats, {np.mean(gains):+.2f} points")
    return measured


def taught(data: Data, method: students.Method, seed: int) -> float:
    """MRR@10 in percent of a new student."""
    return students.mrr(students.train(data, method, seed), data)


def setting(teacher: str, assistant: str) -> str:
    """As tried.jsonl names a pair."""
    return f"teacher knows {teacher}; assistant knows {assistant}"


def measured(teacher: str) -> pd.DataFrame:
    """The committed students of a teacher: a row per assistant, means over the seeds.

    Columns distance (nats), gain (points over RD), low and high (its 95% interval).
    """
    rows = {}
    for known in ASSISTANTS:
        far = tried.values(QUESTION, setting(teacher, known), DISTANCE)  # (S,)
        gains = np.array(tried.values(QUESTION, setting(teacher, known), GAIN))  # (S,)
        error = float(gains.std(ddof=1)) / np.sqrt(len(gains))
        gain = Estimate(float(gains.mean()), error, len(gains) - 1)
        rows[known] = {
            "distance": float(np.mean(far)),
            "gain": gain.mean,
            "low": gain.low(0.025),
            "high": gain.high(0.025),
        }
    return pd.DataFrame(rows).T
