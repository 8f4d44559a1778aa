"""Checks of the notebooks' exercises: each says what is wrong with an answer, never what is right."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from math import log

import numpy as np
import torch
from torch import Tensor

from leadkit import losses, scores

NOT_YET = "no answer yet"


def say(number: int, wrong: str | None) -> None:
    """Print the verdict on an exercise: what is wrong, or nothing."""
    print(f"exercise {number}: " + (wrong or "right"))


def _result(function: Callable, *inputs: object) -> object:
    """What a learner's function returns, or the error that it raises; None as long as there is no function."""
    try:
        return None if function is None or function is ... else function(*inputs)
    except Exception as error:  # whatever the learner wrote
        return error


def _numbers(name: str, answer: object, shape: Sequence[int | None]) -> np.ndarray | str:
    """The answer as finite numbers of this shape (None: any length but 0), or the sentence that says why it is not."""
    if answer is None or answer is ...:
        return NOT_YET
    if isinstance(answer, Exception):
        return f"{name} raises {type(answer).__name__}: {answer}"
    try:
        found = np.asarray(answer.detach().cpu() if isinstance(answer, Tensor) else answer).astype(float, casting="same_kind")
    except Exception:  # whatever the learner wrote
        return f"{name} is of type {type(answer).__name__} and cannot be read as numbers of one shape"
    if found.ndim != len(shape) or any(n != m if m else n == 0 for n, m in zip(found.shape, shape, strict=True)):
        wanted = f"({', '.join(str(m or 'any') for m in shape)}{',' * (len(shape) == 1)})" if shape else "one number"
        return f"{name} has shape {found.shape}: it must be {wanted}"
    return found if np.isfinite(found).all() else f"{name} holds a value that is not a finite number"


def _compare(name: str, answer: object, right: object, mistakes: Mapping[str, object], otherwise: str) -> str | None:
    """None for the right numbers, else a sentence: that of the first mistake that leads to the answer, or `otherwise`."""
    found = _numbers(name, answer, np.shape(right))
    for sentence, value in ((None, right), *mistakes.items()):
        if not isinstance(shaped := _numbers(name, answer, np.shape(value)), str) and np.allclose(shaped, value, 1e-3, 1e-6):
            return sentence
    return found if isinstance(found, str) else otherwise


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Standard normal tensors in float64, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


# --- 01 Unified view


def not_symmetric(query_states: object, passage_states: object) -> None:
    """Notebook 01, exercise 1: token states (X, H) and (Y, H) whose MaxSim changes when query and passage change places."""
    say(1, _not_symmetric(_numbers("query_states", query_states, (None, None)),
                          _numbers("passage_states", passage_states, (None, None))))


def _not_symmetric(q: np.ndarray | str, p: np.ndarray | str) -> str | None:
    if isinstance(q, str) or isinstance(p, str):
        return q if isinstance(q, str) else p
    if q.shape[1] != p.shape[1]:
        return f"a query token has {q.shape[1]} numbers and a passage token {p.shape[1]}: no dot product joins them"
    if len(q) == len(p) == 1:
        return "with one token on each side MaxSim is the dot product, and a dot product is symmetric"
    there, back = (scores.maxsim(a[None, None], b[None, None], torch.ones(1, len(b))).item()
                   for a, b in ((torch.tensor(q), torch.tensor(p)), (torch.tensor(p), torch.tensor(q))))
    return f"with these states MaxSim is {there:g} both ways round" if np.isclose(there, back) else None


def query_padding(q: Tensor, p: Tensor, p_mask: Tensor, same_order: object, other_order: object) -> None:
    """Notebook 01, exercise 2: a state (H,) of one padded position, counted after the query tokens q (X, H), for each effect.

    The passages are p (N, Y, H) with p_mask (N, Y), none of them tied for q.
    """
    say(2, _query_padding(q, p, p_mask, "same_order", same_order, False) or
        _query_padding(q, p, p_mask, "other_order", other_order, True))


def _query_padding(q: Tensor, p: Tensor, p_mask: Tensor, name: str, answer: object, change: bool) -> str | None:
    state = _numbers(name, answer, q.shape[1:])
    if isinstance(state, str):
        return state
    padded = torch.cat([q, torch.tensor(state, dtype=q.dtype)[None]])  # (X + 1, H)
    before, after = (scores.maxsim(x[None, None], p[None], p_mask)[0, 0] for x in (q, padded))  # (N,), no q_mask
    if torch.allclose(before, after):
        return f"{name} changes no score: padding that adds 0 to every passage does no harm"
    if after.unique().numel() < after.numel():
        return f"{name} leaves two passages with the same score: choose one without a tie"
    changed = not torch.equal(before.argsort(), after.argsort())
    if changed != change:
        return f"{name} changes the ranking too" if changed else f"{name} changes the scores, but not the ranking"
    return None


def index_bytes(de: object, cb: object) -> None:
    """Notebook 01, exercise 3: bytes of an index of 26,089 passages, H = 128, float16, 60 tokens each, of a DE and of a CB."""
    vectors = {"de": 26_089, "cb": 26_089 * 60}
    right = {name: 128 * count * torch.finfo(torch.float16).bits // 8 for name, count in vectors.items()}
    wrong = None
    for name, answer, other in (("de", de, "cb"), ("cb", cb, "de")):
        wrong = wrong or _compare(name, answer, right[name], {
            f"{name} is the size of the other retriever's index: which of the two keeps a vector per token?": right[other],
            f"{name} is in bits: a byte has eight": 8 * right[name],
            f"{name} is the size in float32: a float16 takes half of that": 2 * right[name],
            f"{name} counts numbers: a float16 takes more than one byte": right[name] / 2,
            f"{name} is in megabytes: give bytes": right[name] / 1e6,
            f"{name} is in mebibytes: give bytes": right[name] / 2**20,
            f"{name} counts vectors: each has H numbers": vectors[name],
        }, f"{name} is not passages times vectors of a passage times numbers of a vector times bytes of a number")
    say(3, wrong)


# --- 02 Layer features


def kl_limit(limit: Callable) -> None:
    """Notebook 02, exercise 1: limit(t, s) of scores (C,) is what tau_d^2 KL(t / tau_d, s / tau_d) goes to for large tau_d."""
    t, s = _random((6,), (6,))
    right = (1e8 * losses.kl(t, s, 1e4)).item()
    say(1, _compare("limit(t, s)", _result(limit, t, s), right, {
        "this is twice the limit: the expansion of the KL begins with a half": 2 * right,
        "this divides by C - 1: the mean is one under the uniform distribution, over C candidates": right * 6 / 5,
        "this is a sum over the candidates: the uniform distribution takes their mean": 6 * right,
        "a constant added to all scores changes this, but not the KL: subtract the mean": (t - s).square().mean().item() / 2,
        "this is the KL at tau_d = 1, not the limit": losses.kl(t, s).item(),
        "without the factor tau_d^2 everything goes to 0": 0.0,
    }, "for 6 random scores tau_d^2 KL goes to another number: expand both softmaxes to first order in 1 / tau_d"))


def peaked_entropy(entropy: Callable, smallest: object) -> None:
    """Notebook 02, exercise 2: entropy(C) in nats of 0.9 on one of C candidates, the rest spread evenly; the first C above 1."""
    def term(p: float) -> float:
        return -p * log(p)

    def exact(C: float) -> float:
        return term(0.9) + (C - 1) * term(0.1 / (C - 1))

    wrong = _compare("entropy(5)", _result(entropy, 5), exact(5), {
        "entropy(5) is in bits: nats need the natural logarithm": exact(5) / log(2),
        "entropy(5) is negative: the minus sign is missing": -exact(5),
        "entropy(5) gives the other candidates 0.1 / C each: they do not add up to 0.1": term(0.9) + 4 * term(0.1 / 5),
        "entropy(5) gives every other candidate 0.1: probabilities must add up to one": term(0.9) + 4 * term(0.1),
        "entropy(5) counts only one of the other candidates": term(0.9) + term(0.1 / 4),
        "entropy(5) leaves out the peak": 4 * term(0.1 / 4),
        "entropy(5) leaves out the other candidates": term(0.9),
    }, "entropy(5) is wrong: it is a sum of -p ln p over one peak and four others")
    found = _numbers("smallest", smallest, ())
    if wrong or isinstance(found, str):
        say(2, wrong or found)
    elif found != found.round() or found < 2:
        say(2, f"smallest is {found}: it counts candidates, so it is a whole number, at least 2")
    elif exact(found) < 1:
        say(2, f"with {found:.0f} candidates the entropy is still below 1 nat")
    else:
        say(2, "one candidate fewer would still reach 1 nat" if found > 2 and exact(found - 1) >= 1 else None)


def swapped_map(swapped: object, row: object, student: Tensor, teacher: Tensor) -> None:
    """Notebook 02, exercise 3: KL(student layer, teacher layer) of layer scores (M, B, C) and (N, B, C) as (M, N), means over B.

    row: the student layer, from 1, whose row differs most from KL(teacher, student): a mean over it of absolute differences.
    """
    there = losses.kl(teacher[None], student[:, None])  # (M, N, B)
    back = losses.kl(student[:, None], teacher[None])  # (M, N, B)
    change = (back.mean(-1) - there.mean(-1)).abs().mean(1)  # (M,)
    most = change.argmax().item() + 1
    say(3, _compare("swapped", swapped, back.mean(-1), {
        "swapped is the map of section 8: its arguments are not swapped": there.mean(-1),
        "swapped has the teacher's layers in its rows: the student's belong there": back.mean(-1).T,
        "swapped is the map of section 8 on its side: swap the arguments of the KL, not rows and columns": there.mean(-1).T,
        "swapped adds up the queries: take their mean": back.sum(-1),
        "swapped keeps the queries apart: take their mean": back,
    }, "swapped is not KL(student, teacher) of every pair") or _compare("row", row, most, {
        "row is counted from 0: layers are counted from 1": most - 1,
        "row is the one that changes least": change.argmin().item() + 1,
    }, "another row changes more: compare the two maps cell by cell, without the signs"))


# --- 03 Random selection


def mean_teacher(means: object) -> None:
    """Notebook 03, exercise 1: K = M = 6, N = 12: the mean of the teacher's layer for student layers 1 to 6."""
    right = np.mean(list(combinations(range(1, 13), 6)), 0)  # (6,): all sets are equally likely
    say(1, _compare("means", means, right, {
        "these are layers counted from 0: the first layer is 1": right - 1,
        "these fall with depth: the i-th of the sorted teacher layers teaches student layer i": right[::-1],
        "this is every second layer: the mean of random draws ends before the tower does": np.arange(2, 13, 2),
        "this is the middle of the layers that b can meet: they are not equally likely": np.arange(1, 7) + 3,
        "this is the mean of all layers: order is kept, so deeper student layers have deeper teachers": np.full(6, 6.5),
    }, "these are not the means over all draws: which layers can teach layer 1, and in how many of the draws does each?"))


def steps_to_cover(every_step: object, every_tenth: object) -> None:
    """Notebook 03, exercise 2: for K = 1, 3, 5 the median number of steps until 90 % of the possible pairs were used.

    M = 6, N = 12, layers drawn anew at every step, and at every tenth. Accepted: where 25 to 75 % of trainings get there.
    """
    draws = np.array([np.quantile(_draws_to_cover(k), (0.25, 0.75)) for k in (1, 3, 5)])  # (3, 2)
    say(2, _between("every_step", every_step, draws, "")
        or _between("every_tenth", every_tenth, 10 * draws - [9, 0], " (a draw serves ten steps)"))


def _between(name: str, answer: object, ends: np.ndarray, hint: str) -> str | None:
    found = _numbers(name, answer, (len(ends),))
    if isinstance(found, str):
        return found
    for k, steps, (low, high) in zip((1, 3, 5), found, ends, strict=True):
        if steps < low:
            return f"{name}, K = {k}: after {steps:g} steps most trainings have used less than 90 % of the possible pairs{hint}"
        if steps > high:
            return f"{name}, K = {k}: {steps:g} steps are too many, 90 % are of the pairs that can meet at this K"
    return None


@cache
def _draws_to_cover(k: int, trainings: int = 400) -> np.ndarray:
    """Draws that each training needs until 90 % of the possible pairs were used: (trainings,)."""
    every = [set(zip(s, t, strict=True)) for s, t in product(combinations(range(6), k), combinations(range(12), k))]
    enough, generator = 0.9 * len(set().union(*every)), np.random.default_rng(0)
    needed = np.zeros(trainings)
    for training in range(trainings):
        seen = set()
        while len(seen) < enough:
            seen |= every[generator.integers(len(every))]
            needed[training] += 1
    return needed


def nearest_pairs(strategy: Callable) -> None:
    """Notebook 03, exercise 3: strategy(distance, k), (M, N) -> k student and k teacher layers in order with the least total."""
    distance, k = _random((4, 7))[0].abs(), 3
    found = _numbers(f"strategy(distance, {k})", _result(strategy, distance.clone(), k), (2, k))
    say(3, found if isinstance(found, str) else _nearest_pairs(found, distance.numpy()))


def _nearest_pairs(found: np.ndarray, distance: np.ndarray) -> str | None:
    for name, layers, count in zip(("student", "teacher"), found, distance.shape, strict=True):
        if 0 in layers:
            return f"{name} layer 0 does not exist: layers are counted from 1"
        for layer in layers:
            if layer not in range(1, count + 1):
                return f"{name} layer {layer:g} does not exist: that tower has layers 1 to {count} (the student's come first)"
        if len(set(layers)) < len(layers):
            return f"a {name} layer stands in two pairs: each is drawn at most once"
    student, teacher = found.astype(int) - 1
    if (np.diff(student) < 0).any():
        return "the student layers are not sorted"
    if (np.diff(teacher) < 0).any():
        return "the lines cross: where the order is kept the teacher layers are sorted too"
    chosen = product(*(list(map(list, combinations(range(count), len(student)))) for count in distance.shape))
    totals, total = [distance[b, a].sum() for b, a in chosen], distance[student, teacher].sum()
    if np.isclose(total, min(totals)):
        return None
    return ("these pairs are the farthest, not the nearest" if np.isclose(total, max(totals)) else
            "other pairs in order have a smaller total: a near pair that is taken early can block the way for the others")


# --- 04 Re-weighting


def shares(share: Callable) -> None:
    """Notebook 04, exercise 1: share(p_plus, tau_l) of probabilities (K, B) of the positive is Eq. (7), without exp or log."""
    p = _random((3, 4))[0].sigmoid()  # (K, B)
    two = torch.stack([p, 1 - p], -1).log()  # (K, B, C=2): scores with these features
    wrong = None
    for tau in (1, 0.5, 4):
        powers = {power: p**power for power in (1 / tau, -1 / tau, tau, 1, 2)}
        of_layers = {power: x / x.sum(0) for power, x in powers.items()}
        here, right = f"at tau_l = {tau}", losses.layer_weights(two, torch.zeros(4, dtype=torch.long), tau)
        wrong = wrong or _compare(f"share(p_plus, {tau})", _result(share, p.clone(), tau), right, {
            "the shares add up to one over the queries: Eq. (7) normalises over the layers":
                powers[1 / tau] / powers[1 / tau].sum(1, keepdim=True),
            f"{here} the shares do not add up to one over the layers": powers[1 / tau],
            "the shares grow as the probability falls: the sign is wrong": of_layers[-1 / tau],
            f"{here} these are the shares of tau_l = 1": of_layers[1],
            f"{here} these are the shares of 1 / tau_l: a small temperature sharpens": of_layers[tau],
            f"{here} these are the shares of the squares": of_layers[2],
        }, f"{here} these are not the weights of Eq. (7): what is exp of a logarithm that was divided by tau_l?")
    say(1, wrong)


def worst_query(worst: object, told: object, t: Tensor, y: Tensor, tau_l: float) -> None:
    """Notebook 04, exercise 2: of layer scores (K, B, C), y (B,), the query whose best layer is worst; what the student hears.

    worst: its column in t, from 0. told: the weighted mean over all K layers of t_i(p+), for that query.
    """
    nll = losses.nll(t, y)  # (K, B)
    p, w = (-nll).exp(), losses.layer_weights(t, y, tau_l)  # (K, B)
    column = nll.amin(0).argmax().item()
    say(2, _compare("worst", worst, column, {
        "worst is counted from 1: it is a column of t, and those are counted from 0": column + 1,
        "worst is the query that its best layer knows best": nll.amin(0).argmin().item(),
        "worst has the worst mean over the layers: look at its best layer, which may still know": nll.mean(0).argmax().item(),
        "worst has the worst single layer: look at its best one": nll.amax(0).argmax().item(),
    }, "the best layer of another query gives its positive a smaller probability")
        or _compare("told", told, (w * p).sum(0)[column], {
        "told gives every layer 1 / K: use the weights of Eq. (7)": p.mean(0)[column],
        "told is what the best layer says: the others have weights too": p.amax(0)[column],
        "told is a mean over all queries: only the worst one is asked for": (w * p).sum(0).mean(),
        "told is a weighted mean of the NLL: a probability is asked for": (w * nll).sum(0)[column],
        "told is the sum of the weights: multiply each by what its layer gives to the positive": w.sum(0)[column],
    }, "told is not the weighted mean of the probabilities that the layers give to the positive of this query"))


def same_voices(tau: object, t: Tensor, y: Tensor, factor: float) -> None:
    """Notebook 04, exercise 3: the tau_l at which t (K, B, C), y (B,) hears as many layers as 10 does on the raw scores t / factor.

    Layers are counted by the perplexity of the weights of all K, a mean over the queries. Accepted: within 0.05 of a layer.
    """
    def heard(x: Tensor, temperature: float) -> float:
        return torch.special.entr(losses.layer_weights(x, y, temperature)).sum(0).exp().mean().item()

    found = _numbers("tau", tau, ())
    if isinstance(found, str):
        return say(3, found)
    if found <= 0:
        return say(3, f"tau is {found:g}: a temperature must be positive")
    here, wanted = heard(t, float(found)), heard(t / factor, 10.0)
    if abs(here - wanted) <= 0.05:
        return say(3, None)
    if np.isclose(found, 10 * factor, rtol=1e-2):
        return say(3, "10 times the factor would be it if an NLL shrank as its scores do: compare the numbers of layers heard")
    if np.isclose(found, 10 / factor, rtol=1e-2):
        return say(3, "10 divided by the factor goes the wrong way: smaller scores need a smaller temperature")
    more = "more" if here > wanted else "fewer"
    say(3, f"at tau_l = {found:g} the scaled scores hear {here:.2f} layers, {more} than the raw ones at 10")


# --- 05 Joint training


def kl_gradients(gradients: Callable, bounded: object) -> None:
    """Notebook 05, exercise 1: gradients(t, s) of scores (C,), those of KL(t, s) and KL(s, t) by s; 1 or 2, the bounded one."""
    t, s = _random((5,), (5,))
    right = _autograd(t, s, by_teacher=False)  # (2, C)
    log_t, log_s = t.log_softmax(0), s.log_softmax(0)
    by_probability = torch.stack([-(log_t - log_s).exp(), log_s - log_t + 1])
    wrong = _compare("kl_gradients(t, s)", _result(gradients, t.clone(), s.clone()), right, {
        "the two are swapped: KL(t, s) comes first": right.flip(0),
        "both have the wrong sign": -right,
        "the first one has the wrong sign": right * torch.tensor([[-1], [1]]),
        "the second one has the wrong sign": right * torch.tensor([[1], [-1]]),
        "these are the gradients with respect to the teacher's scores": _autograd(t, s, by_teacher=True),
        "these are the gradients by the student's probabilities: its scores lie behind a softmax": by_probability,
        "the second one does not add up to 0 over the candidates: a constant added to all scores must change nothing":
            torch.stack([right[0], log_s.exp() * (log_s - log_t)]),
        "the second one does not add up to 0: a constant added to all scores must change nothing":
            torch.stack([right[0], log_s.exp() * (log_s - log_t + 1)]),
    }, "autograd gives something else")
    extreme = _autograd(torch.tensor([0.0, -1000.0]), torch.zeros(2), by_teacher=False).abs().amax(1)  # (2,)
    say(1, wrong or _compare("bounded", bounded, 1 + extreme.argmin().item(), {
        "that gradient is not bounded: let the teacher's probability of one candidate go to 0": 1 + extreme.argmax().item(),
    }, "bounded must be 1, for KL(t, s), or 2, for KL(s, t)"))


def _autograd(t: Tensor, s: Tensor, by_teacher: bool) -> Tensor:
    t, s = (x.clone().requires_grad_() for x in (t, s))
    return torch.stack([torch.autograd.grad(loss, t if by_teacher else s)[0] for loss in (losses.kl(t, s), losses.kl(s, t))])


def without_teacher_loss(history: object) -> None:
    """Notebook 05, exercise 2: the toy of section 7 with both KLs, no hard loss: the teacher's 60 probabilities of the positive."""
    right = _toy()
    say(2, _compare("history", history, right[:60], {
        "this begins after the first step: note the probability before each step": right[1:],
        "this teacher learns from the first KL only: the second is to stay": _toy(second=0)[:60],
        "this teacher learns from the second KL only: the first is not detached": _toy(detach=True)[:60],
        "this teacher still has its hard loss: take it away": _toy(hard=1)[:60],
        "this teacher is frozen: both KLs are to move it": right[:1] * 60,
    }, "the toy of section 7 with the loss KL(t, s) + KL(s, t) and nothing detached gives another curve"))


@cache
def _toy(detach: bool = False, second: float = 1, hard: float = 0) -> list[float]:
    """The teacher's probability of the positive before each of 60 steps, and after the last."""
    teacher = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    student = torch.tensor([[0.0, 3.0, 0.0]], requires_grad=True)
    optimizer, history = torch.optim.SGD([teacher, student], lr=0.5), []
    for _ in range(61):
        history.append(teacher.softmax(-1)[0, 0].item())
        first = losses.kl(teacher.detach() if detach else teacher, student)
        loss = first + second * losses.kl(student, teacher) + hard * losses.nll(teacher, torch.tensor([0]))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return history


def lead_total(total: Callable) -> None:
    """Notebook 05, exercise 3: total(student, teacher, student_final, teacher_final, positive) is the joint loss of LEAD.

    Checked at tau_d = tau_l = 1 on random scores (K, B, C) and (B, C): its value, then its gradients.
    """
    inputs = [x.requires_grad_() for x in _random((3, 4, 8), (3, 4, 8), (4, 8), (4, 8))]
    student, teacher, student_final, teacher_final = inputs
    positive = torch.tensor([0, 3, 7, 2])
    loss, alike = (losses.lead_loss(*inputs, positive, reweight=reweight) for reweight in (True, False))
    right = torch.autograd.grad(loss.total, inputs, allow_unused=True)
    there, back = losses.kl(teacher_final, student_final).mean(), losses.kl(student_final, teacher_final).mean()
    swapped = (loss.weights * losses.kl(student, teacher)).sum(0).mean()
    mistakes = {
        "the layer loss, Eq. (8), is missing": loss.total - loss.layer,
        "the response loss, Eq. (9), is missing": loss.total - loss.response,
        "the response loss looks one way only: KL(s, t) is missing": loss.total - back,
        "the response loss looks one way only: KL(t, s) is missing": loss.total - there,
        "the teacher's hard loss, Eq. (10), is missing": loss.total - loss.teacher,
        "the student's hard loss, Eq. (11), is missing": loss.total - loss.student,
        "the layers count alike: the weights of Eq. (7) are missing": alike.total,
        "the layer loss is divided by K, though its weights add up to one already": loss.total - loss.layer * 2 / 3,
        "the layer loss is KL(s, t): Eq. (6) has the teacher first": loss.total - loss.layer + swapped,
        "this adds up the queries: take their mean": 4 * loss.total,
    }
    answer = _result(total, *inputs, positive)
    wrong = _compare("lead_total(...)", answer, loss.total.item(), {sentence: value.item() for sentence, value in mistakes.items()},
                     "for random scores the value is not that of Eq. (12): compare the four terms one by one")
    say(3, wrong or _lead_gradients(answer, inputs, right))


def _lead_gradients(answer: object, inputs: Sequence[Tensor], right: Sequence[Tensor | None]) -> str | None:
    found = _result(lambda: torch.autograd.grad(answer, inputs, allow_unused=True))
    if isinstance(found, Exception):
        return "the value is right, but no gradient can be taken of it: return the tensor, and leave backward to the caller"
    reasons = ("the student's layers do not get the gradient of the layer loss",
               "the layer loss moves the teacher too: its layers must be detached",
               "something that should move the student's final scores is detached",
               "something that should move the teacher's final scores is detached")
    for x, mine, exact, reason in zip(inputs, found, right, reasons, strict=True):
        zero = torch.zeros_like(x)
        if not torch.allclose(zero if mine is None else mine, zero if exact is None else exact, atol=1e-9):
            return f"the value is right, but {reason}"
    return None
