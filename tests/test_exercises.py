"""The checks of lessons 01 to 05: right answers, none, mistakes, and never an exception."""

import json
import math
import random
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, tensor

from leadkit import losses, selection
from leadkit.lessons import exercises
from leadkit.lessons.exercises.answers import NOT_YET, exercise

# --- answers, right and wrong, that do not come from the checks

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
QUERY = tensor([[1.0, 0.0]])  # (X, H)
PASSAGES = tensor(
    [[[2, 1], [0, 3], [9, 9]], [[1, 0], [1, 1], [0, 2]], [[3, 0], [9, 9], [9, 9]]]
).float()  # (N, Y, H)
MASK = tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])  # (N, Y); the query's scores are 2, 1, 3
DE, CB = 26_089 * 128 * 2, 26_089 * 60 * 128 * 2


def layer_scores(*shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(4))


STUDENT, TEACHER = layer_scores(3, 4, 5), layer_scores(7, 4, 5)[1:]  # (M, B, C), (N, B, C)
POSITIVE = tensor([0, 4, 2, 1])


def divergence(t: Tensor, s: Tensor) -> float:
    p, q = t.softmax(0), s.softmax(0)
    return (p * (p / q).log()).sum().item()


THERE = [
    [np.mean([divergence(t[b], s[b]) for b in range(4)]) for t in TEACHER] for s in STUDENT
]  # (M, N)
BACK = [[np.mean([divergence(s[b], t[b]) for b in range(4)]) for t in TEACHER] for s in STUDENT]
CHANGE = np.abs(np.subtract(BACK, THERE)).mean(1)  # (M,)


def half_variance(t: Tensor, s: Tensor) -> Tensor:
    return (t - s).var(correction=0) / 2


def pairs(distance: Tensor, k: int, choose=min):
    """The least total of all k pairs in order, by trying every choice."""
    M, N = distance.shape
    every = product(combinations(range(1, M + 1), k), combinations(range(1, N + 1), k))
    return choose(
        every, key=lambda layers: sum(distance[b - 1, a - 1] for b, a in zip(*layers, strict=True))
    )


def greedy(distance: Tensor, k: int):
    """The nearest pair, then the nearest that does not cross, ..."""
    chosen = []
    for flat in distance.flatten().argsort().tolist():
        b, a = divmod(flat, distance.shape[1])
        if len(chosen) < k and all((b - c) * (a - d) > 0 for c, d in chosen):
            chosen.append((b, a))
    return tuple(zip(*[(b + 1, a + 1) for b, a in sorted(chosen)], strict=True))


def normal(x: Tensor, dim: int = 0) -> Tensor:
    return x / x.sum(dim, keepdim=True)


P = torch.stack([layer.softmax(-1)[range(4), POSITIVE] for layer in TEACHER])  # (N, B), t_i(p+)
W = normal(P ** (1 / 2))  # Eq. (7) at tau_l = 2


def forward(queries, passages, layers):
    """Layer scores, one product at a time."""
    rows = [[[q[0] @ p[0] for p in passages[i]] for q in queries[i]] for i in layers]
    return [[[value.item() for value in row] for row in layer] for layer in rows]


def cls(queries, passages, layers):
    return torch.stack([queries[i][:, 0] @ passages[i][:, 0].T for i in layers])


def pair_loss(t, s, tau, over=1):
    """Eq. (4) to (6) from probabilities."""
    p, q = (t / tau).softmax(over), (s / tau).softmax(over)
    return (p * (p / q).log()).sum(1).mean()


def drawn(k, M, N, generator):
    """By shuffling, where the package draws from a multinomial."""
    return [sorted((torch.randperm(n, generator=generator)[:k] + 1).tolist()) for n in (M, N)]


def fixed_by_the_first(layers):
    """Each tower's sets are equally likely, but the student's leaves five to the teacher."""
    student, teacher = layers
    sets = list(combinations(range(1, 7), 3))
    return [student, sets[sets.index(tuple(teacher)) // 4 * 4 + sum(student) - 6]]


def shares(t, y, tau, fixed=True):
    """Eq. (7) without exp or log: shares of the powers of t_i(p+)."""
    p = t.softmax(-1)[:, range(len(y)), y] ** (1 / tau)  # (K, B)
    w = normal(p)
    return w.detach() if fixed else w


def eq_8(s, t, y, tau, *, swap=False, attached=False, fixed=True, weights=None, roll=0, soft=1.0):
    taught = (t if attached else t.detach()).roll(roll, 0)
    p, q = (taught / soft).softmax(-1), (s / soft).softmax(-1)
    each = (q * (q / p).log() if swap else p * (p / q).log()).sum(-1)  # (K, B)
    w = shares(t if not fixed else t.detach(), y, tau, fixed) if weights is None else weights
    return (w * each).sum(0).mean()


def voices(p: Tensor) -> float:
    return np.mean(
        [math.exp(-sum(w * math.log(w) for w in column)) for column in normal(p).T.tolist()]
    )


def same_voices(factor: float) -> float:
    raw = torch.stack(
        [(layer / factor).double().softmax(-1)[range(4), POSITIVE] for layer in TEACHER]
    )
    return min(
        np.geomspace(0.01, 100, 3000),
        key=lambda tau: abs(voices(P.double() ** (1 / tau)) - voices(raw ** (1 / 10))),
    )


def by_scores(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    p, q = t.softmax(0), s.softmax(0)
    apart = (q / p).log()
    return q - p, q * (apart - (q * apart).sum())


def by_teacher(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return by_scores(s, t)[::-1]


def by_probability(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    p, q = t.softmax(0), s.softmax(0)
    return -p / q, (q / p).log() + 1


def uncentred(plus: float):
    def gradients(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        p, q = t.softmax(0), s.softmax(0)
        return q - p, q * ((q / p).log() + plus)

    return gradients


def toy(
    first: float = 1, through: bool = True, second: float = 1, hard: float = 0, skip: int = 0
) -> list[float]:
    """first KL(t, s) + second KL(s, t) + hard L_tch, by the gradients of exercise 1."""
    t, s, history = tensor([3.0, 0, 0]).double(), tensor([0.0, 3, 0]).double(), []
    for _ in range(60 + skip):
        history.append(t.softmax(0)[0].item())
        (s1, s2), (t1, t2) = by_scores(t, s), by_teacher(t, s)
        t_step = through * first * t1 + second * t2 + hard * (t.softmax(0) - tensor([1.0, 0, 0]))
        t, s = t - 0.5 * t_step, s - 0.5 * (first * s1 + second * s2)
    return history[skip:]


def lead(
    student,
    teacher,
    student_final,
    teacher_final,
    positive,
    *,
    layer=1.0,
    there=1.0,
    back=1.0,
    hard_t=1.0,
    hard_s=1.0,
    weighted=True,
    swap=False,
    fixed=True,
    attached=False,
    cut=None,
):
    """Eq. (6) to (12) in plain operations, and what can be left out of it."""
    if cut == "student":
        student = student.detach()
    hard_t_scores = teacher_final
    if cut == "teacher_final":
        teacher_final = teacher_final.detach()
    if cut == "student_final":
        student_final = student_final.detach()
    log_t, log_s = (
        (teacher if attached else teacher.detach()).log_softmax(-1),
        student.log_softmax(-1),
    )
    rows = range(len(positive))
    w = log_t[:, rows, positive].softmax(0) if weighted else 1 / len(teacher)
    w = w.detach() if fixed and weighted else w
    each = (log_s.exp() * (log_s - log_t) if swap else log_t.exp() * (log_t - log_s)).sum(-1)
    a, b = teacher_final.log_softmax(-1), student_final.log_softmax(-1)
    response = (there * a.exp() * (a - b) + back * b.exp() * (b - a)).sum(-1)
    hard = hard_t * hard_t_scores.log_softmax(-1)[rows, positive] + hard_s * b[rows, positive]
    return (layer * (w * each).sum(0) + response - hard).mean()


# --- the right answers

CASES = {  # check -> how it is called with the answers, the right answers
    "layer_scores": (exercises.layer_scores, (forward,)),
    "not_symmetric": (exercises.not_symmetric, ([[1, 0], [0, 1]], [[2, 1]])),
    "query_padding": (
        lambda same, other: exercises.query_padding(QUERY, PASSAGES, MASK, same, other),
        ([5, 5], [0, 5]),
    ),
    "feature_loss": (exercises.feature_loss, (pair_loss,)),
    "kl_limit": (exercises.kl_limit, (half_variance,)),
    "swapped_map": (
        lambda swapped, row: exercises.swapped_map(swapped, row, STUDENT, TEACHER),
        (BACK, CHANGE.argmax() + 1),
    ),
    "draw_layers": (exercises.draw_layers, (drawn,)),
    "mean_teacher": (exercises.mean_teacher, ([13 / 7 * b for b in range(1, 7)],)),
    "nearest_pairs": (exercises.nearest_pairs, (pairs,)),
    "weights_of_layers": (exercises.weights_of_layers, (shares,)),
    "layer_loss": (exercises.layer_loss, (eq_8,)),
    "same_voices": (
        lambda tau: exercises.same_voices(tau, TEACHER, POSITIVE, 0.3),
        (same_voices(0.3),),
    ),
    "lead_total": (exercises.lead_total, (lead,)),
    "kl_gradients": (exercises.kl_gradients, (by_scores, 1)),
    "without_teacher_loss": (exercises.without_teacher_loss, (toy(),)),
    "whose_student": (
        exercises.whose_student,
        ({"early": "LEAD", "half": "neither", "loud": "RD"},),
    ),
}


def verdict(capsys, check: str, *answers: object) -> str:
    call, _ = CASES[check]
    start = f"exercise {exercises.EXERCISES[check].number}: "
    assert call(*answers) is None
    printed = capsys.readouterr().out
    assert printed.startswith(start) and printed.count("\n") == 1
    return printed.removeprefix(start).strip()


def test_every_check_of_notebooks_01_to_05_is_here():
    assert [e.name for e in exercises.EXERCISES.values() if e.lesson <= 5] == list(CASES)


def test_a_lesson_numbers_its_exercises_from_one():
    for lesson in range(1, 10):
        numbers = [e.number for e in exercises.EXERCISES.values() if e.lesson == lesson]
        assert numbers == list(range(1, len(numbers) + 1)) and 2 <= len(numbers) <= 4


JUNK = [
    "text",
    "",
    [],
    {},
    {1, 2},
    object(),
    True,
    -1,
    0,
    0.5,
    10**400,
    -1e308,
    math.nan,
    math.inf,
    1j,
    [[1], [2, 3]],
    [None],
    "3",
    [[]],
    np.array(["a"]),
    torch.zeros(2, 2, 2),
    tensor(7.5, requires_grad=True),
    torch.zeros(2, 0),
    np.zeros((60, 1)),
    int,
    lambda *x: x,
    lambda *x: x[0],
    lambda *x: "text",
    lambda *x: 1 / 0,
    lambda x: x,
    lambda *x: math.nan,
    lambda *x: [x, x],
    lambda *x: x[0] + 1j,
    lambda *x: x[0].requires_grad_().sum().backward(),
    [[0, 0, 0], [0, 0, 0]],
]


# --- the wrong answers

MISTAKES = [
    ("layer_scores", (lambda q, p, layers: cls(q, p, [i - 1 for i in layers]),), "off by one"),
    (
        "layer_scores",
        (lambda q, p, layers: cls(q, p, [-i for i in layers]),),
        "after the first block",
    ),
    ("layer_scores", (lambda q, p, layers: cls(q, p, range(1, 5)),), "all layers: answer"),
    ("layer_scores", (lambda q, p, layers: cls(q, p, range(5)),), "all states, the embeddings too"),
    ("layer_scores", (lambda q, p, layers: cls(p, q, layers),), "rows and columns are swapped"),
    ("layer_scores", (lambda q, p, layers: cls(q, p, [4]),), "the final layer alone"),
    (
        "layer_scores",
        (lambda q, p, layers: cls(*[[x.mean(1)[:, None] for x in y] for y in (q, p)], layers),),
        "means over all tokens",
    ),
    ("layer_scores", (lambda *x: cls(*x).mean(0),), "a mean over the layers"),
    ("layer_scores", (lambda *x: cls(*x).softmax(-1),), "these are distributions"),
    ("layer_scores", (lambda *x: cls(*x) + 1,), "not the products of the [CLS] states"),
    (
        "layer_scores",
        (lambda *x: cls(*x)[0],),
        "forward has shape (2, 3): it must be (2, 2, 3)",
    ),
    ("not_symmetric", ([[1, 2]], [[3, 4]]), "dot product, and a dot product is symmetric"),
    ("not_symmetric", ([[1, 0], [0, 1]], [[0, 1], [1, 0]]), "MaxSim is 2 both ways round"),
    ("not_symmetric", ([[1, 0]], [[1, 2, 3]]), "a query token has 2 numbers and a passage token 3"),
    ("not_symmetric", ([1, 0], [[1, 2]]), "query_states has shape (2,): it must be (any, any)"),
    ("query_padding", ([0, 0], [0, 5]), "same_order changes no score"),
    ("query_padding", ([0, 1], [0, 5]), "same_order leaves two passages with the same score"),
    ("query_padding", ([0, 5], [0, 5]), "same_order changes the ranking too"),
    ("query_padding", ([5, 5], [0, 0]), "other_order changes no score"),
    ("query_padding", ([5, 5], [5, 5]), "other_order changes the scores, but not the ranking"),
    ("query_padding", ([5, 5, 5], [0, 5]), "same_order has shape (3,): it must be (2,)"),
    ("feature_loss", (lambda t, s, tau: pair_loss(s, t, tau),), "has the teacher first"),
    ("feature_loss", (lambda *x: pair_loss(*x, over=0),), "softmax runs over the queries"),
    ("feature_loss", (lambda *x: pair_loss(*x) / 5,), "a mean over the candidates too"),
    ("feature_loss", (lambda *x: 3 * pair_loss(*x),), "adds up the queries"),
    ("feature_loss", (lambda t, s, tau: losses.kl(t, s, tau),), "keeps the queries apart"),
    ("feature_loss", (lambda t, s, tau: pair_loss(t / tau, s, 1),), "the teacher's scores only"),
    ("feature_loss", (lambda t, s, tau: pair_loss(t, s / tau, 1),), "the student's scores only"),
    ("feature_loss", (lambda t, s, tau: pair_loss(t, s, 1),), "tau_d is not used"),
    ("feature_loss", (lambda t, s, tau: pair_loss(t, s, 1 / tau),), "tau_d multiplies"),
    ("feature_loss", (lambda t, s, tau: pair_loss(t, s, 1) / tau,), "divides the probabilities"),
    ("feature_loss", (lambda t, s, tau: tau**2 * pair_loss(t, s, tau),), "Hinton's factor"),
    ("feature_loss", (lambda *x: -pair_loss(*x),), "the sign is wrong"),
    ("feature_loss", (lambda t, s, tau: (t - s).square().mean(),), "the squared error"),
    (
        "feature_loss",
        (lambda t, s, tau: -((t / tau).softmax(1) * (s / tau).log_softmax(1)).sum(1).mean(),),
        "the cross entropy",
    ),
    ("feature_loss", (lambda *x: 0.5,), "this is not Eq. (6)"),
    ("kl_limit", (lambda t, s: (t - s).var(correction=0),), "twice the limit"),
    ("kl_limit", (lambda t, s: (t - s).var() / 2,), "divides by C - 1"),
    ("kl_limit", (lambda t, s: 6 * half_variance(t, s),), "a sum over the candidates"),
    ("kl_limit", (lambda t, s: (t - s).square().mean() / 2,), "subtract the mean"),
    ("kl_limit", (divergence,), "the KL at tau_d = 1"),
    ("kl_limit", (lambda t, s: 0,), "without the factor tau_d^2"),
    (
        "kl_limit",
        (lambda t, s: 0.6875,),
        "for 6 random scores",
    ),
    ("swapped_map", (THERE, 1), "its arguments are not swapped"),
    ("swapped_map", (np.transpose(BACK), 1), "the teacher's layers in its rows"),
    ("swapped_map", (np.transpose(THERE), 1), "on its side"),
    ("swapped_map", (np.multiply(4, BACK), 1), "adds up the queries"),
    ("swapped_map", (losses.kl(STUDENT[:, None], TEACHER[None]), 1), "keeps the queries apart"),
    ("swapped_map", (np.add(1, BACK), 1), "not KL(student, teacher) of every pair"),
    ("swapped_map", (np.zeros((3, 3)), 1), "swapped has shape (3, 3): it must be (3, 6)"),
    ("swapped_map", (BACK, CHANGE.argmax()), "row is counted from 0"),
    ("swapped_map", (BACK, CHANGE.argmin() + 1), "changes least"),
    ("swapped_map", (BACK, 7), "another row changes more"),
    ("draw_layers", (lambda *x: [[b - 1 for b in layers] for layers in drawn(*x)],), "from 0 to 3"),
    ("draw_layers", (lambda k, M, N, g: drawn(k, M + 1, N, g),), "student layer 5 does not exist"),
    ("draw_layers", (lambda k, M, N, g: drawn(k, M, N + 1, g),), "teacher layer 7 does not exist"),
    (
        "draw_layers",
        (
            lambda k, M, N, g: [
                (torch.randint(n, (k,), generator=g) + 1).sort().values.tolist() for n in (M, N)
            ],
        ),
        "is drawn twice",
    ),
    (
        "draw_layers",
        (lambda k, M, N, g: [torch.randperm(n, generator=g)[:k].add(1).tolist() for n in (M, N)],),
        "are not sorted",
    ),
    (
        "draw_layers",
        (lambda k, M, N, g: selection.last_layers(k, M, N),),
        "2000 draws are all the same",
    ),
    (
        "draw_layers",
        (lambda k, M, N, g: [drawn(k, M, N, g)[0]] * 2,),
        "always have the same layers",
    ),
    ("draw_layers", (lambda k, M, N, g: drawn(k, M, M, g),), "teacher layer 5 is never drawn"),
    (
        "draw_layers",
        (lambda k, M, N, g: selection.weighted_layers(k, M, N, g, torch.arange(1.0, 7)),),
        "with every set equally likely it is in 50%",
    ),
    (
        "draw_layers",
        (
            lambda k, M, N, g: [
                drawn(k, M, N, g)[0],
                (torch.randint(2, (3,), generator=g) + tensor([1, 3, 5])).tolist(),
            ],
        ),
        "sets of teacher layers are drawn",
    ),
    (
        "draw_layers",
        (lambda k, M, N, g: fixed_by_the_first(drawn(k, M, N, g)),),
        "a student's set fixes",
    ),
    (
        "draw_layers",
        (lambda k, M, N, g: [sorted(random.sample(range(1, n + 1), k)) for n in (M, N)],),
        "the same seed draws other layers",
    ),
    (
        "draw_layers",
        (lambda k, M, N, g: drawn(k, M, N, g)[::-1][:1],),
        "has shape (1, 3): it must be (2, 3)",
    ),
    ("draw_layers", (lambda k, M, N, g: [[1.5, 2, 3], [1, 2, 3]],), "is not a whole number"),
    ("mean_teacher", ([13 / 7 * b - 1 for b in range(1, 7)],), "counted from 0"),
    ("mean_teacher", ([13 / 7 * b for b in range(6, 0, -1)],), "fall with depth"),
    ("mean_teacher", ([2 * b for b in range(1, 7)],), "every second layer"),
    ("mean_teacher", ([b + 3 for b in range(1, 7)],), "the middle of the layers"),
    ("mean_teacher", ([6.5] * 6,), "the mean of all layers"),
    ("mean_teacher", ([924 * 13 / 7 * b for b in range(1, 7)],), "not the means over all draws"),
    ("mean_teacher", (13 / 7,), "means has shape (): it must be (6,)"),
    ("nearest_pairs", (lambda d, k: pairs(d, k, max),), "the farthest"),
    ("nearest_pairs", (lambda d, k: ((0, 1, 2), (0, 1, 2)),), "student layer 0 does not exist"),
    ("nearest_pairs", (lambda d, k: ((1, 2, 3), (0, 1, 2)),), "teacher layer 0 does not exist"),
    ("nearest_pairs", (lambda d, k: ((5, 6, 7), (1, 2, 3)),), "student layer 5 does not exist"),
    ("nearest_pairs", (lambda d, k: ((1, 2, 3), (1.5, 2, 3)),), "teacher layer 1.5 does not exist"),
    (
        "nearest_pairs",
        (lambda d, k: ((1, 2, 2), (1, 2, 3)),),
        "a student layer stands in two pairs",
    ),
    ("nearest_pairs", (lambda d, k: ((1, 3, 2), (1, 2, 3)),), "the student layers are not sorted"),
    ("nearest_pairs", (lambda d, k: ((1, 2, 3), (3, 2, 1)),), "the lines cross"),
    ("nearest_pairs", (greedy,), "other pairs in order have a smaller total"),
    (
        "nearest_pairs",
        (lambda d, k: list(zip(*pairs(d, k), strict=True)),),
        "has shape (3, 2): it must be (2, 3)",
    ),
    (
        "weights_of_layers",
        (
            lambda t, y, tau: (
                normal(shares(t, y, tau), 1)
                if 0
                else normal(t.softmax(-1)[:, range(4), y] ** (1 / tau), 1).detach()
            ),
        ),
        "add up to one over the queries",
    ),
    ("weights_of_layers", (lambda t, y, tau: shares(t, y, -tau),), "the sign is wrong"),
    (
        "weights_of_layers",
        (lambda t, y, tau: t.softmax(-1)[:, range(4), y] ** (1 / tau),),
        "these are not normalised",
    ),
    (
        "weights_of_layers",
        (lambda t, y, tau: (losses.nll(t, y).mean(1) / -tau).softmax(0),),
        "one weight per layer for the whole batch",
    ),
    ("weights_of_layers", (lambda t, y, tau: shares(t, y, 1),), "the weights of tau_l = 1"),
    ("weights_of_layers", (lambda t, y, tau: shares(t, y, 1 / tau),), "the weights of 1 / tau_l"),
    (
        "weights_of_layers",
        (lambda t, y, tau: (t[:, range(4), y] / tau).softmax(0),),
        "softmax of the positive's scores",
    ),
    (
        "weights_of_layers",
        (lambda t, y, tau: shares(t, torch.zeros_like(y), tau),),
        "takes passage 0",
    ),
    ("weights_of_layers", (lambda *x: shares(*x).T,), "these are transposed"),
    ("weights_of_layers", (lambda t, y, tau: losses.nll(t, y),), "the NLL of each layer"),
    ("weights_of_layers", (lambda *x: shares(*x) + 0.1,), "these are not the weights of Eq. (7)"),
    ("weights_of_layers", (lambda *x: shares(*x, fixed=False),), "a detach is missing"),
    ("layer_loss", (lambda *x: eq_8(*x, swap=True),), "Eq. (6) has the teacher first"),
    ("layer_loss", (lambda *x: eq_8(*x) / 3,), "a mean over the layers too"),
    ("layer_loss", (lambda *x: 4 * eq_8(*x),), "adds up the queries"),
    (
        "layer_loss",
        (lambda s, t, y, tau: (shares(t, y, tau) * losses.kl(t, s)).sum(0),),
        "keeps the queries apart",
    ),
    (
        "layer_loss",
        (lambda s, t, y, tau: (shares(t, y, tau) * losses.kl(t, s)).sum(1),),
        "keeps the layers apart",
    ),
    ("layer_loss", (lambda *x: eq_8(*x, weights=1 / 3),), "the layers count alike"),
    ("layer_loss", (lambda *x: eq_8(*x, weights=1),), "a plain sum of the layers"),
    ("layer_loss", (lambda s, t, y, tau: eq_8(s, t, y, 1),), "tau_l is not used"),
    ("layer_loss", (lambda *x: eq_8(*x, soft=x[3]),), "tau_l softens the features too"),
    ("layer_loss", (lambda *x: eq_8(*x, roll=1),), "the layers are off by one"),
    (
        "layer_loss",
        (lambda s, t, y, tau: eq_8(s, t, y, tau, weights=shares(s, y, tau)),),
        "how well the student knows",
    ),
    ("layer_loss", (lambda s, t, y, tau: eq_8(s, t, y, tau, weights=0.2),), "this is not Eq. (8)"),
    (
        "layer_loss",
        (lambda *x: eq_8(*x, attached=True),),
        "moves the teacher too, so a detach is missing",
    ),
    (
        "layer_loss",
        (lambda *x: eq_8(*x, fixed=False),),
        "moves the teacher too, so a detach is missing",
    ),
    ("layer_loss", (lambda s, *x: eq_8(s.detach(), *x) + 0 * s.sum(),), "do not get its gradient"),
    ("layer_loss", (lambda *x: eq_8(*x).item(),), "no gradient can be taken"),
    ("same_voices", (0,), "a temperature must be positive"),
    ("same_voices", (3,), "if an NLL shrank as its scores do"),
    ("same_voices", (10 / 0.3,), "goes the wrong way"),
    ("same_voices", (20,), "more than the raw ones at 10"),
    ("same_voices", (0.1,), "fewer than the raw ones at 10"),
    ("kl_gradients", (lambda t, s: by_scores(t, s)[::-1], 1), "the two are swapped"),
    (
        "kl_gradients",
        (lambda t, s: tuple(-x for x in by_scores(t, s)), 1),
        "both have the wrong sign",
    ),
    (
        "kl_gradients",
        (lambda t, s: (-by_scores(t, s)[0], by_scores(t, s)[1]), 1),
        "the first one has the wrong sign",
    ),
    (
        "kl_gradients",
        (lambda t, s: (by_scores(t, s)[0], -by_scores(t, s)[1]), 1),
        "the second one has the wrong sign",
    ),
    ("kl_gradients", (by_teacher, 1), "teacher's scores"),
    ("kl_gradients", (by_probability, 1), "behind a softmax"),
    ("kl_gradients", (uncentred(0), 1), "does not add up to 0"),
    ("kl_gradients", (uncentred(1), 1), "does not add up to 0"),
    ("kl_gradients", (lambda t, s: (t, s), 1), "autograd gives something else"),
    ("kl_gradients", (by_scores, 2), "that gradient is not bounded"),
    ("kl_gradients", (by_scores, 3), "bounded must be 1"),
    ("without_teacher_loss", (toy(skip=1),), "after the first step"),
    ("without_teacher_loss", (toy(second=0),), "from the first KL only"),
    ("without_teacher_loss", (toy(through=False),), "from the second KL only"),
    ("without_teacher_loss", (toy(hard=1),), "still has its hard loss"),
    ("without_teacher_loss", ([toy()[0]] * 60,), "is frozen"),
    ("without_teacher_loss", (toy(first=2),), "gives another curve"),
    ("without_teacher_loss", (toy()[-1],), "history has shape (): it must be (60,)"),
]
WAYS = [  # of lead_total
    ({"layer": 0}, "the layer loss, Eq. (8), is missing"),
    ({"there": 0, "back": 0}, "the response loss, Eq. (9), is missing"),
    ({"back": 0}, "KL(s, t) is missing"),
    ({"there": 0}, "KL(t, s) is missing"),
    ({"hard_t": 0}, "the teacher's hard loss, Eq. (10)"),
    ({"hard_s": 0}, "the student's hard loss, Eq. (11)"),
    ({"weighted": False}, "the weights of Eq. (7) are missing"),
    ({"layer": 1 / 3}, "divided by K"),
    ({"swap": True}, "Eq. (6) has the teacher first"),
    ({"layer": 4, "there": 4, "back": 4, "hard_t": 4, "hard_s": 4}, "adds up the queries"),
    ({"there": 2}, "compare the four terms one by one"),
    ({"attached": True}, "the layer loss moves the teacher too"),
    ({"attached": True, "fixed": False}, "the layer loss moves the teacher too"),
    ({"cut": "student"}, "the student's layers do not get"),
    ({"cut": "teacher_final"}, "should move the teacher's final scores is detached"),
    ({"cut": "student_final"}, "should move the student's final scores is detached"),
]
MISTAKES += [
    ("lead_total", (lambda *x, way=way: lead(*x, **way),), sentence) for way, sentence in WAYS
]
MISTAKES += [
    ("lead_total", (lambda *x: lead(*x).item(),), "no gradient can be taken"),
    ("lead_total", (lambda *x: lead(*x).backward(),), NOT_YET),
    ("lead_total", (lambda student: 0,), "lead_total stops with TypeError"),
]


NOTHING = (None, ..., lambda *x: None, lambda *x: ...)


@pytest.mark.parametrize("check", CASES)
def test_answers(capsys, check):
    """The right answers, none, junk, and each mistake with a sentence of its own."""
    right = CASES[check][1]
    assert verdict(capsys, check, *right) == "right"
    for place in range(len(right)):

        def instead(answer, place=place):
            return verdict(capsys, check, *right[:place], answer, *right[place + 1 :])

        # One answer of two is not enough, nor is a function that returns nothing.
        for nothing in NOTHING if callable(right[place]) else NOTHING[:2]:
            assert instead(nothing) == NOT_YET, f"{nothing!r} at place {place}"
        for junk in JUNK:
            allowed = junk is True and (check, place) == ("kl_gradients", 1)  # True is 1
            assert instead(junk) != "right" or allowed, f"{junk!r} at place {place}"
    mistakes = [(answers, sentence) for name, answers, sentence in MISTAKES if name == check]
    for answers, sentence in mistakes:
        printed = verdict(capsys, check, *answers)
        assert sentence in printed, f"{sentence!r} is not said, but {printed!r}"
        others = {other for _, other in mistakes if other != sentence} | {printed}
        assert sum(sentence in other for other in others) == 1, f"{sentence!r} is not its own"


def test_checks_do_not_touch_the_global_generators():
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = torch.get_rng_state()
    for call, answers in CASES.values():
        call(*answers)
    assert torch.equal(before, torch.get_rng_state())
    assert random.random() == random.Random(3).random()


def test_the_package_agrees_with_these_answers():
    """The right answers above are written without the package: here is the bridge."""
    torch.testing.assert_close(
        losses.kl(TEACHER[:, None], STUDENT).mean(-1).double().T, tensor(THERE), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(losses.layer_weights(TEACHER, POSITIVE, 2.0), W)


def test_the_package_draws_as_the_check_wants(capsys):
    assert verdict(capsys, "draw_layers", selection.random_layers) == "right"


def test_an_unknown_grade_is_refused():
    with pytest.raises(ValueError, match="grade is 'trivial': use one of easy, medium, hard"):
        exercise(1, 1, "trivial")(lambda answer: None)


def cells_of(path: Path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def calls(path: Path) -> tuple[list[str], str]:
    """The checks that a notebook calls, in order, and what its cells print."""
    cells = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    source = "".join(cell["source"] for cell in cells)
    printed = "".join("".join(out.get("text", "")) for cell in cells for out in cell["outputs"])
    return re.findall(r"exercises\.(\w+)\(", source), printed


def wanted(path: Path) -> list[exercises.Exercise]:
    return [e for e in exercises.EXERCISES.values() if e.lesson == int(path.name[:2])]


LESSONS = sorted(NOTEBOOKS.glob("0*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_and_solutions_call_the_same_checks(lesson):
    called, unanswered = calls(lesson)
    solved, printed = calls(NOTEBOOKS / "solutions" / lesson.name)
    assert called == solved == [e.name for e in wanted(lesson)]
    verdicts = [f"exercise {e.number}: " for e in wanted(lesson)]
    assert re.findall("exercise .*", printed) == [start + "right" for start in verdicts]
    assert re.findall("exercise .*", unanswered) == [start + NOT_YET for start in verdicts]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_prompt_shows_the_grade_and_hints_at_hard_ones(lesson):
    prompts = [
        cell["source"]
        for cell in cells_of(lesson)
        if cell["cell_type"] == "markdown" and re.search(r"^\*\*\d\. \(", cell["source"], re.M)
    ]
    shown = [re.search(r"^\*\*(\d)\. \((\w+)\)\*\*", prompt, re.M).groups() for prompt in prompts]
    assert shown == [(str(e.number), e.grade) for e in wanted(lesson)]
    for prompt, (_, grade) in zip(prompts, shown, strict=True):
        assert ("<details><summary>Hint</summary>\n\n" in prompt) == (grade == "hard"), prompt
        assert prompt.count("<details>") == prompt.count("\n\n</details>")


@pytest.mark.parametrize("lesson", LESSONS[:5], ids=lambda path: path.stem)
def test_the_reader_writes_before_the_library_is_shown(lesson):
    """In lessons 01 to 05 the first exercise stands before the first look into the library."""
    sources = [cell["source"] for cell in cells_of(lesson) if cell["cell_type"] == "code"]
    shown = next(i for i, source in enumerate(sources) if "inspect.getsource(" in source)
    asked = next(
        i for i, source in enumerate(sources) if f"exercises.{wanted(lesson)[0].name}(" in source
    )
    assert asked < shown


def test_the_instructors_page_lists_every_exercise_with_its_grade():
    page = (NOTEBOOKS / "INSTRUCTOR.md").read_text()
    listed = re.findall(r"^\| 0(\d)\.(\d) \| (\w+) \|", page, re.M)
    every = exercises.EXERCISES.values()
    assert listed == [(str(e.lesson), str(e.number), e.grade) for e in every]
