"""A made world: queries, passages and a teacher, where we decide which layer knows what.

A text is a row of numbers. Sixteen of them, in four groups, are its topic; eight distract. A query
has the topic of its positive passage, blurred, and distracting features of its own. Nobody sees
these features: a random rotation and stretching mixes them first, and the student must undo it.
The teacher is not trained. We write down what each of its layers says.

Shapes: B training queries and as many passages, their positives; N teacher layers, R texts,
F features.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

GROUPS, SIZE, DISTRACTING = 4, 4, 8  # groups of topic features, features of each, other features
FEATURES = GROUPS * SIZE + DISTRACTING  # F
FAINT = 0.7  # size of a distracting feature in a text; a topic feature has 1
BLUR = 0.5  # how far a query's topic is from that of its passage
SHARPNESS = 0.25  # of a teacher's scores
TEST_QUERIES, TEST_PASSAGES = 300, 600


@dataclass(frozen=True)
class Layer:
    """What a teacher layer says: its score of a query and a passage is a sum of three parts."""

    knows: tuple[int, ...] = (1, 2, 3, 4)  # groups whose similarity it knows
    distraction: float = 0.0  # weight of the similarity of distracting features
    certainty: float = 0.0  # added to the score of the positive: 8 makes it all but one-hot


KNOWS_ALL = Layer()
DROWNED = Layer(knows=(), distraction=1.0, certainty=8.0)
LOUD = Layer(knows=(), distraction=2.0)


@dataclass(frozen=True)
class World:
    """The N layers of a teacher, and how many training queries there are."""

    layers: tuple[Layer, ...]
    queries: int = 128

    def __post_init__(self) -> None:
        """ValueError, naming the field, for what cannot be made."""
        if self.queries < 2:
            raise ValueError(f"queries is {self.queries}: use at least 2, a positive and another")
        for number, layer in enumerate(self.layers, start=1):
            wrong = set(layer.knows) - set(range(1, GROUPS + 1))
            if wrong:
                raise ValueError(f"layer {number} knows {sorted(wrong)}: groups are 1 to {GROUPS}")


WORLDS = {
    "drowned": World((*5 * (KNOWS_ALL,), DROWNED)),
    "twin": World(6 * (KNOWS_ALL,)),
    "moving": World(tuple(Layer((group,)) for group in (1, 2, 3, 4, 4, 4))),
    "noisy": World((KNOWS_ALL, LOUD, KNOWS_ALL, LOUD, KNOWS_ALL, DROWNED)),
    "deepening": World(
        (Layer((1,)), Layer((1,)), Layer((1, 2)), Layer((1, 2, 3)), KNOWS_ALL, KNOWS_ALL)
    ),
}


@dataclass(frozen=True)
class Texts:
    """R queries or passages: what they are about, and what the student sees of it."""

    topic: Tensor  # (R, GROUPS, SIZE)
    distracting: Tensor  # (R, DISTRACTING)
    seen: Tensor  # (R, F)


@dataclass(frozen=True)
class Data:
    """Query i belongs to passage i. Training queries have no passages but their positives."""

    queries: Texts
    passages: Texts
    teacher: Tensor  # (N, B, B), scores of the training queries
    test_queries: Texts
    test_passages: Texts


def make(world: World, seed: int) -> Data:
    """Draw texts, and let the teacher score those for training."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(FEATURES, FEATURES, generator=generator) / math.sqrt(FEATURES)
    pairs = partial(_pairs, mixing, generator)
    queries, passages = pairs(world.queries, world.queries)
    test_queries, test_passages = pairs(TEST_QUERIES, TEST_PASSAGES)
    teacher = torch.stack([layer_scores(layer, queries, passages) for layer in world.layers])
    return Data(queries, passages, teacher, test_queries, test_passages)


def _pairs(mixing: Tensor, generator: Generator, queries: int, passages: int) -> tuple[Texts, ...]:
    """Queries, and the passages of which the first belong to them."""
    topic = torch.randn(passages, GROUPS, SIZE, generator=generator)  # (C, GROUPS, SIZE)
    blur = torch.randn(queries, GROUPS, SIZE, generator=generator)  # (B, GROUPS, SIZE)
    asked = topic[:queries] + BLUR * blur
    return tuple(_texts(each, mixing, generator) for each in (asked, topic))


def _texts(topic: Tensor, mixing: Tensor, generator: Generator) -> Texts:
    distracting = torch.randn(len(topic), DISTRACTING, generator=generator)  # (R, DISTRACTING)
    features = torch.cat([topic.flatten(1), FAINT * distracting], 1)  # (R, F)
    return Texts(topic, distracting, features @ mixing)


def layer_scores(layer: Layer, queries: Texts, passages: Texts) -> Tensor:
    """What a teacher layer says of B queries and as many passages, the positives: (B, B)."""
    chosen = [group - 1 for group in layer.knows]
    topics = [texts.topic[:, chosen].flatten(1) for texts in (queries, passages)]
    known = topics[0] @ topics[1].T  # (B, B)
    others = queries.distracting @ passages.distracting.T / math.sqrt(DISTRACTING)  # (B, B)
    positive = torch.eye(len(known))  # (B, B)
    return SHARPNESS * known + layer.distraction * others + layer.certainty * positive
