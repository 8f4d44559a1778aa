"""The checks of lessons 01 to 05: right answers, none, mistakes, and never an exception."""

import json
import math
import random
import re
from itertools import combinations, product
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from torch import Tensor, tensor

from leadkit import losses, selection
from leadkit.lessons import exercises
from leadkit.lessons.exercises.answers import NOT_YET

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


def entropy(C: int, share: float | None = None, others: float | None = None) -> float:
    share, others = share or 0.1 / (C - 1), C - 1 if others is None else others
    return -0.9 * math.log(0.9) - others * share * math.log(share)


def half_variance(t: Tensor, s: Tensor) -> Tensor:
    return (t - s).var(correction=0) / 2


def simulated(share: float) -> list[float]:
    """As a learner would: median draws until this share of the possible pairs was used."""
    generator, medians = torch.Generator().manual_seed(1), []
    for k, possible in ((1, 72), (3, 66), (5, 52)):
        steps = []
        for _ in range(30):
            seen, draws = set(), 0
            while len(seen) < share * possible:
                seen |= set(zip(*selection.random_layers(k, 6, 12, generator), strict=True))
                draws += 1
            steps.append(draws)
        medians.append(median(steps))
    return medians


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
WORST = P.amax(0).argmin().item()
TOLD = (W * P).sum(0)  # (B,)


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

CASES = {  # check -> arguments of the notebook, right answers, order of both in the call
    "not_symmetric": (1, lambda q, p: exercises.not_symmetric(q, p), ([[1, 0], [0, 1]], [[2, 1]])),
    "query_padding": (
        2,
        lambda same, other: exercises.query_padding(QUERY, PASSAGES, MASK, same, other),
        ([5, 5], [0, 5]),
    ),
    "index_bytes": (3, exercises.index_bytes, (DE, CB)),
    "kl_limit": (1, exercises.kl_limit, (half_variance,)),
    "peaked_entropy": (2, exercises.peaked_entropy, (entropy, 855)),
    "swapped_map": (
        3,
        lambda swapped, row: exercises.swapped_map(swapped, row, STUDENT, TEACHER),
        (BACK, CHANGE.argmax() + 1),
    ),
    "mean_teacher": (1, exercises.mean_teacher, ([13 / 7 * b for b in range(1, 7)],)),
    "steps_to_cover": (2, exercises.steps_to_cover, ([165, 90, 95], [1641, 891, 941])),
    "nearest_pairs": (3, exercises.nearest_pairs, (pairs,)),
    "shares": (1, exercises.shares, (lambda p, tau: normal(p ** (1 / tau)),)),
    "worst_query": (
        2,
        lambda worst, told: exercises.worst_query(worst, told, TEACHER, POSITIVE, 2.0),
        (WORST, TOLD[WORST]),
    ),
    "same_voices": (
        3,
        lambda tau: exercises.same_voices(tau, TEACHER, POSITIVE, 0.3),
        (same_voices(0.3),),
    ),
    "kl_gradients": (1, exercises.kl_gradients, (by_scores, 1)),
    "without_teacher_loss": (2, exercises.without_teacher_loss, (toy(),)),
    "lead_total": (3, exercises.lead_total, (lead,)),
    "whose_student": (
        4,
        exercises.whose_student,
        ({"early": "LEAD", "half": "neither", "loud": "RD"},),
    ),
}


def verdict(capsys, check: str, *answers: object) -> str:
    number, call, _ = CASES[check]
    assert call(*answers) is None
    printed = capsys.readouterr().out
    assert printed.startswith(f"exercise {number}: ") and printed.count("\n") == 1
    return printed.removeprefix(f"exercise {number}: ").strip()


def test_every_check_of_notebooks_01_to_05_is_here():
    documented = {name: vars(exercises)[name].__doc__ for name in exercises.__all__}
    assert all(re.match("Notebook 0[1-9], exercise [1-4]: ", doc) for doc in documented.values())
    assert [name for name, doc in documented.items() if doc[10] in "12345"] == list(CASES)


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
    ("index_bytes", (CB, DE), "de is the size of the other retriever's index"),
    ("index_bytes", (DE, DE), "cb is the size of the other retriever's index"),
    ("index_bytes", (8 * DE, CB), "de is in bits"),
    ("index_bytes", (2 * DE, CB), "de is the size in float32"),
    ("index_bytes", (DE, CB / 2), "cb counts numbers"),
    ("index_bytes", (DE / 1e6, CB), "de is in megabytes"),
    ("index_bytes", (DE, CB / 2**20), "cb is in mebibytes"),
    ("index_bytes", (DE, 26_089 * 60), "cb counts vectors"),
    ("index_bytes", (DE, 60 * 128 * 2), "cb is not passages times"),
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
    ),  # the limit of the notebook's scores alone
    ("peaked_entropy", (lambda C: entropy(C) / math.log(2), 855), "in bits"),
    ("peaked_entropy", (lambda C: -entropy(C), 855), "is negative"),
    ("peaked_entropy", (lambda C: entropy(C, 0.1 / C), 855), "0.1 / C each"),
    ("peaked_entropy", (lambda C: entropy(C, 0.1), 855), "every other candidate 0.1"),
    ("peaked_entropy", (lambda C: entropy(C, others=1), 855), "only one of the other"),
    (
        "peaked_entropy",
        (lambda C: entropy(C) - 0.9 * math.log(1 / 0.9), 855),
        "leaves out the peak",
    ),
    ("peaked_entropy", (lambda C: entropy(C, others=0), 855), "leaves out the other candidates"),
    ("peaked_entropy", (lambda C: math.log(C), 855), "entropy(5) is wrong"),
    ("peaked_entropy", (entropy, 854), "still below 1 nat"),
    ("peaked_entropy", (entropy, 856), "one candidate fewer"),
    ("peaked_entropy", (entropy, 854.3), "a whole number"),
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
    ("mean_teacher", ([13 / 7 * b - 1 for b in range(1, 7)],), "counted from 0"),
    ("mean_teacher", ([13 / 7 * b for b in range(6, 0, -1)],), "fall with depth"),
    ("mean_teacher", ([2 * b for b in range(1, 7)],), "every second layer"),
    ("mean_teacher", ([b + 3 for b in range(1, 7)],), "the middle of the layers"),
    ("mean_teacher", ([6.5] * 6,), "the mean of all layers"),
    ("mean_teacher", ([924 * 13 / 7 * b for b in range(1, 7)],), "not the means over all draws"),
    ("mean_teacher", (13 / 7,), "means has shape (): it must be (6,)"),
    (
        "steps_to_cover",
        ([165, 90, 300], [1641, 891, 941]),
        "every_step, K = 5: 300 steps are too many",
    ),
    (
        "steps_to_cover",
        ([165, 40, 95], [1641, 891, 941]),
        "every_step, K = 3: after 40 steps most trainings",
    ),
    ("steps_to_cover", ([165, 90, 95], [165, 90, 95]), "(a draw serves ten steps)"),
    (
        "steps_to_cover",
        ([1641, 891, 941], [1641, 891, 941]),
        "every_step, K = 1: 1641 steps are too many",
    ),
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
    ("shares", (lambda p, tau: normal(p ** (1 / tau), 1),), "add up to one over the queries"),
    ("shares", (lambda p, tau: p ** (1 / tau),), "do not add up to one over the layers"),
    ("shares", (lambda p, tau: normal(p ** (-1 / tau)),), "the sign is wrong"),
    ("shares", (lambda p, tau: normal(p),), "the shares of tau_l = 1"),
    ("shares", (lambda p, tau: normal(p**tau),), "the shares of 1 / tau_l"),
    (
        "shares",
        (lambda p, tau: normal(p if tau == 1 else p**2),),
        "at tau_l = 4 these are the shares of the squares",
    ),
    ("shares", (lambda p, tau: normal(p + 1),), "at tau_l = 1 these are not the weights"),
    ("worst_query", (WORST + 1, 0), "worst is counted from 1"),
    ("worst_query", (P.amax(0).argmax(), 0), "its best layer knows best"),
    ("worst_query", (9, 0), "the best layer of another query"),
    ("worst_query", (WORST, P.mean(0)[WORST]), "every layer 1 / K"),
    ("worst_query", (WORST, P.amax(0)[WORST]), "what the best layer says"),
    ("worst_query", (WORST, TOLD.mean()), "a mean over all queries"),
    ("worst_query", (WORST, (W * -P.log()).sum(0)[WORST]), "weighted mean of the NLL"),
    ("worst_query", (WORST, 1), "the sum of the weights"),
    ("worst_query", (WORST, 0.5), "not the weighted mean of the probabilities"),
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
    ("lead_total", (lambda student: 0,), "lead_total(...) raises TypeError"),
]


NOTHING = (None, ..., lambda *x: None, lambda *x: ...)


@pytest.mark.parametrize("check", CASES)
def test_answers(capsys, check):
    """The right answers, none, junk, and each mistake with a sentence of its own."""
    right = CASES[check][2]
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


def test_worst_query_by_the_mean_and_by_a_single_layer(capsys):
    """Scores whose worst query differs by best layer, by mean and by single layer."""
    p = tensor([[0.4, 0.9, 0.3, 0.9], [0.02, 0.001, 0.3, 0.9], [0.02, 0.9, 0.3, 0.95]])  # (K, B)
    t, y = torch.stack([p, 1 - p], -1).log(), torch.zeros(4, dtype=torch.long)
    for worst, sentence in (
        (0, "worst mean over the layers"),
        (1, "worst single layer"),
        (2, "told is not"),
    ):
        exercises.worst_query(worst, 0.7, t, y, 1.0)
        assert sentence in capsys.readouterr().out


def test_a_learner_who_simulates_covers_as_many_pairs(capsys):
    draws = simulated(0.9)
    assert verdict(capsys, "steps_to_cover", draws, [10 * (d - 1) + 1 for d in draws]) == "right"
    assert "less than 90 %" in verdict(capsys, "steps_to_cover", simulated(0.5), draws)


def test_checks_do_not_touch_the_global_generators():
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = torch.get_rng_state()
    for _, call, answers in CASES.values():
        call(*answers)
    assert torch.equal(before, torch.get_rng_state())
    assert random.random() == random.Random(3).random()


def test_the_package_agrees_with_these_answers():
    """The right answers above are written without the package: here is the bridge."""
    torch.testing.assert_close(
        losses.kl(TEACHER[:, None], STUDENT).mean(-1).double().T, tensor(THERE), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(losses.layer_weights(TEACHER, POSITIVE, 2.0), W)


def calls(path: Path) -> tuple[list[str], str]:
    """The checks that a notebook calls, in order, and what its cells print."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    source = "".join("".join(cell["source"]) for cell in cells)
    printed = "".join("".join(out.get("text", "")) for cell in cells for out in cell["outputs"])
    return re.findall(r"exercises\.(\w+)\(", source), printed


def test_lesson_and_solutions_call_the_same_checks():
    for lesson in sorted(NOTEBOOKS.glob("0*.ipynb")):
        called, _ = calls(lesson)
        solved, printed = calls(NOTEBOOKS / "solutions" / lesson.name)
        prefix = f"Notebook {lesson.name[:2]}"
        wanted = [n for n in exercises.__all__ if vars(exercises)[n].__doc__.startswith(prefix)]
        assert called == solved == wanted, lesson.name
        verdicts = [f"exercise {i}: right" for i in range(1, len(wanted) + 1)]
        assert re.findall("exercise .*", printed) == verdicts, lesson.name
