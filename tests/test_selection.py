import math
from collections import Counter
from itertools import combinations, product

import pytest
import torch

from leadkit import selection
from leadkit.losses import layer_weights

EQUAL = torch.ones(12)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_k_layers_of_each_sorted_and_in_range():
    for strategy, k, seed in product(selection.STRATEGIES, (1, 3, 6), range(20)):
        both = selection.select(strategy, k, 6, 12, seeded(seed))
        for layers, count in zip(both, (6, 12), strict=True):
            assert isinstance(layers, tuple) and len(layers) == k, strategy
            assert list(layers) == sorted(set(layers)), strategy
            assert layers[0] >= 1 and layers[-1] <= count, strategy


def test_last_and_skip_are_the_papers_sets():
    assert selection.last_layers(5, 6, 12) == ((2, 3, 4, 5, 6), (8, 9, 10, 11, 12))
    assert selection.skip_layers(5, 6, 12) == ((2, 3, 4, 5, 6), (1, 3, 5, 7, 9))
    assert selection.skip_layers(3, 6, 12, step=4)[1] == (1, 5, 9)


def test_random_layers_are_uniform():
    generator, draws = seeded(), 6000
    student, teacher = zip(
        *(selection.random_layers(2, 3, 4, generator) for _ in range(draws)), strict=True
    )
    for chosen, count in ((student, 3), (teacher, 4)):
        sets = list(combinations(range(1, count + 1), 2))
        counts = Counter(chosen)
        assert set(counts) == set(sets)
        assert all(
            abs(c - draws / len(sets)) < 5 * (draws / len(sets)) ** 0.5 for c in counts.values()
        )
    both = Counter(zip(student, teacher, strict=True))  # chosen independently of each other
    assert len(both) == 3 * 6 and min(both.values()) > draws / 18 / 2


def test_the_generator_decides():
    draw = [selection.random_layers(3, 6, 12, seeded(7)) for _ in range(2)]
    assert draw[0] == draw[1]
    assert len({selection.random_layers(3, 6, 12, seeded(s)) for s in range(20)}) > 10
    before = torch.get_rng_state()
    selection.weighted_layers(3, 6, 12, seeded(), EQUAL)
    assert torch.equal(before, torch.get_rng_state())


def test_weighted_layers_prefer_heavy_ones():
    weights = torch.full((12,), 0.01)
    weights[3] = 0.5
    generator = seeded()
    student, teacher = zip(
        *(selection.weighted_layers(1, 6, 12, generator, weights) for _ in range(2000)), strict=True
    )
    assert Counter(teacher)[(4,)] / 2000 == pytest.approx(0.5 / 0.61, abs=0.05)
    assert Counter(student)[(4,)] / 2000 == pytest.approx(1 / 6, abs=0.05)


def test_layers_heard():
    """Equal weights hear all K layers, one-hot weights one; a smaller tau_l hears fewer."""
    equal = torch.full((5, 3), 1 / 5)
    torch.testing.assert_close(selection.layers_heard(equal), torch.full((3,), 5.0))
    one = torch.eye(5)[:, :1]  # (K, 1)
    assert selection.layers_heard(one).tolist() == [1.0]
    by_hand = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert selection.layers_heard(torch.tensor([0.9, 0.1])).item() == pytest.approx(by_hand)
    teacher, positive = torch.randn(5, 8, 16), torch.zeros(8, dtype=torch.long)
    weights = [layer_weights(teacher, positive, tau_l) for tau_l in (0.01, 0.1, 1, 10, 1000)]
    heard = [selection.layers_heard(each).mean().item() for each in weights]
    assert heard == sorted(heard) and heard[0] < 1.1 and heard[-1] == pytest.approx(5, abs=1e-3)


def test_weights_that_underflowed_still_give_k_layers():
    weights = torch.zeros(12)
    weights[8] = 1
    for seed in range(20):
        teacher = selection.weighted_layers(5, 6, 12, seeded(seed), weights)[1]
        assert len(set(teacher)) == 5 and 9 in teacher


BAD = {
    ("random", 7, 6, 12): "k is 7: it must be from 1 to the student's number of layers, 6",
    ("weighted", 0, 6, 12): "k is 0",
    ("last", -1, 6, 12): "k is -1",
    ("skip", 5, 6, 8): "step is 2",
    ("random", 2, 6, 4): "teacher_layers is 4: it must be at least student_layers, 6",
    ("first", 2, 6, 12): "strategy 'first' is unknown: use one of random, weighted, last, skip",
}


def test_bad_choices(subtests):
    for arguments, message in BAD.items():
        with subtests.test(str(arguments)), pytest.raises(ValueError, match=message):
            selection.select(*arguments, seeded())
    for weights in (EQUAL[:6], -EQUAL, EQUAL * torch.nan):
        with subtests.test(str(weights)), pytest.raises(ValueError, match="weights"):
            selection.weighted_layers(2, 6, 12, seeded(), weights)
