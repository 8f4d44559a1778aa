"""Checks of the exercises of notebooks 06 to 09; as those of 01 to 05 in `exercises`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from itertools import combinations

import numpy as np
import torch
from scipy.stats import norm, ttest_1samp, ttest_ind, ttest_rel
from torch import Tensor

from leadkit import claims, losses, recipes
from leadkit.config import scale
from leadkit.evaluate import paired_t_test
from leadkit.exercises import NOT_YET, say
from leadkit.prod import PROD, Progression, Terms
from leadkit.stages import Trained


def _judge(
    answer: object, right: Callable, mistakes: Mapping[str, Callable], otherwise: str, cases: Sequence[tuple] = (),
    rtol: float = 1e-3, atol: float = 1e-6,
) -> str | None:
    """What is wrong with an answer in numbers, or with a function of the learner's, asked at every case; None where it is right.

    right: what that function should be; without cases, what gives the numbers. mistakes: sentence -> the function that it is about;
    the first that gives the learner's numbers is said (a NaN stands for any number). otherwise: said where none does.
    """
    if answer is None or answer is ...:
        return NOT_YET
    if bool(cases) != callable(answer):
        return f"{'a function is' if cases else 'numbers are'} wanted, not {type(answer).__name__}"
    cases, given = cases or [()], []
    for case in cases:
        try:
            value = answer(*deepcopy(case)) if case else answer
        except Exception as error:
            return f"your function stops with {type(error).__name__}: {error}"
        if value is None or value is ...:
            return NOT_YET
        try:
            given.append(np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, float))
        except Exception:
            return f"numbers are wanted, not {type(value).__name__}"

    def same(function: Callable) -> bool:
        pairs = [(value, np.asarray(function(*case), float)) for value, case in zip(given, cases, strict=True)]
        return all(g.shape == w.shape and (np.isclose(g, w, rtol, atol) | np.isnan(w)).all() for g, w in pairs)

    if same(right):
        return None
    if found := next((sentence for sentence, mistake in mistakes.items() if same(mistake)), None):
        return found
    for value, case in zip(given, cases, strict=True):
        if value.shape != (shape := np.shape(right(*case))):
            return f"the shape {value.shape} is not the one wanted, {shape}"
        if not np.isfinite(value).all():
            return "a value is not finite"
    return otherwise


def _no_names(answer: object, names: Collection[str]) -> str | None:
    """What keeps an answer from being a set of some of these names."""
    if isinstance(answer, str) or not isinstance(answer, Collection) or not all(isinstance(name, str) for name in answer):
        return f"a set of names is wanted, out of {', '.join(names)}"
    if unknown := [name for name in answer if name not in names]:
        return f"{unknown[0]!r} is not among the names: {', '.join(names)}"
    return None


# --- 06 Full training


def ignorant_loss(answer: Callable[[int, int, str | None], float] | None) -> None:
    """Notebook 06, exercise 1: (queries of a batch, passages per query, teacher or None) -> hard loss of equal scores, in nats."""
    def candidates(batch: int, passages: int, teacher: str | None) -> int:
        return passages if teacher == "CE" else batch * passages

    def loss(C: int) -> float:
        return losses.student_loss(torch.zeros(1, C), torch.tensor([0])).total.item()

    cases = [(32, 2, None), (32, 2, "DE"), (8, 4, "CB"), (8, 4, "CE"), (32, 16, "CE")]
    say(1, _judge(answer, lambda *case: loss(candidates(*case)), {
        "that is the number of candidates, and the loss is asked": candidates,
        "the positive is a candidate too, not only the negatives": lambda *case: loss(candidates(*case) - 1),
        "every query of the batch brings all its passages, not its positive alone":
            lambda batch, passages, teacher: loss(passages if teacher == "CE" else batch),
        "you give every query its own passages only: with which teachers does it meet those of the others?":
            lambda batch, passages, teacher: loss(passages),
        "you score every query against all passages of the batch: one of the teachers reads pairs and cannot":
            lambda batch, passages, teacher: loss(batch * passages),
        "the control has no teacher that could limit its candidates":
            lambda batch, passages, teacher: loss(candidates(batch, passages, teacher or "CE")),
    }, "not the hard loss of equal scores: what is the softmax of C zeros?", cases))


def _two_systems() -> list[tuple[np.ndarray, np.ndarray]]:
    """Reciprocal ranks (S, Q) of two systems that answer half of the queries alike, with every seed."""
    draw, found = np.random.default_rng(6), []
    for seeds, queries in ((5, 60), (3, 200), (5, 90)):
        easy = draw.normal(0, 1, queries)
        a, b = (np.clip(np.round(np.exp(easy + draw.normal(0, 0.5, (seeds, queries)) + shift)), 1, 10) for shift in (0, 0.08))
        found.append((1 / a, 1 / np.where(draw.random(queries) < 0.5, a, b)))
    return found


def paired_p(answer: Callable[[np.ndarray, np.ndarray], float] | None) -> None:
    """Notebook 06, exercise 2: reciprocal ranks (S, Q) of two systems -> p over the queries, each the mean of its S seeds."""
    def of(p_value: Callable) -> Callable:
        return lambda a, b: p_value(a.mean(0), b.mean(0))

    say(2, _judge(answer, of(lambda a, b: paired_t_test(a, b)[1]), {
        "that is an unpaired test: both systems answer the same queries, so test their differences":
            of(lambda a, b: ttest_ind(a, b).pvalue),
        "every query counts once for each seed: several answers to one query are not several queries, take their mean first":
            lambda a, b: ttest_rel(a.ravel(), b.ravel()).pvalue,
        "that is a test over the seeds: the paper's is over the queries": lambda a, b: ttest_rel(a.mean(1), b.mean(1)).pvalue,
        "that is one-sided: the first system could also be worse": of(lambda a, b: ttest_rel(a, b).pvalue / 2),
        "that is one seed: take the mean over all of them": lambda a, b: paired_t_test(a[0], b[0])[1],
        "queries that both answer alike are dropped: a difference of zero is a difference":
            of(lambda a, b: ttest_1samp((a - b)[a != b], 0).pvalue),
    }, "not the p-value of a paired t-test over the queries: section 5 has t by hand", _two_systems()))


@cache
def _points(row: str) -> np.ndarray:
    """MRR@10 of a row of the main table in points, (S, Q), from the committed records."""
    found = recipes.main_rows(recipes.read_records(claims.RESULTS / "classroom"))[row]
    return 100 * np.array([record["per_query"]["RR@10"] for record in found])


def spread_of_difference(answer: float | None) -> None:
    """Notebook 06, exercise 3: the standard deviation over the seeds of LEAD's MRR@10 minus RD's, in points."""
    lead, rd = _points("LEAD"), _points("RD")
    a, b = lead.mean(1), rd.mean(1)
    say(3, _judge(answer, lambda: (a - b).std(ddof=1), {
        "that is the sd over queries, and the one over seeds is asked": lambda: (lead - rd).mean(0).std(ddof=1),
        "that is the sd over all values, queries and seeds: first one MRR@10 for each seed": lambda: (lead - rd).std(ddof=1),
        "that is the sd of two independent rows: a seed's LEAD and RD start from the same two checkpoints, so subtract first":
            lambda: np.sqrt(a.var(ddof=1) + b.var(ddof=1)),
        "that is the sd of LEAD alone, and the one of the difference is asked": lambda: a.std(ddof=1),
        "divide by one less than the number of seeds: the mean is estimated from the same seeds": lambda: (a - b).std(),
        "that is the standard error of the mean: do not divide by the root of the number of seeds":
            lambda: (a - b).std(ddof=1) / np.sqrt(len(a)),
        "points are wanted, not a fraction": lambda: (a - b).std(ddof=1) / 100,
    }, "not the sd: one MRR@10 per seed and method, their differences, then the sd of these", rtol=0.02))


# --- 07 Ablations


def released_parts(answer: Mapping[int, Collection[str] | None] | None) -> None:
    """Notebook 07, exercise 1: tau_d, 1 and 2 -> the parts of LEAD's loss whose values change with variant="released"."""
    draw, parts = torch.Generator().manual_seed(7), ("layer", "response", "teacher", "student")
    scores = [torch.randn(shape, generator=draw).double() for shape in ((3, 4, 6), (3, 4, 6), (4, 6), (4, 6))]

    def changed(tau_d: float) -> set[str]:
        positive = torch.zeros(4, dtype=torch.long)
        ours, theirs = (losses.lead_loss(*scores, positive, tau_d=tau_d, variant=variant) for variant in losses.VARIANTS)
        return {part for part in parts if not torch.isclose(getattr(ours, part), getattr(theirs, part))}

    def wrong() -> str | None:
        if answer is None or answer is ... or isinstance(answer, Mapping) and any(found is None for found in answer.values()):
            return NOT_YET
        if not isinstance(answer, Mapping) or set(answer) != {1, 2}:
            return "a dictionary from each tau_d, 1 and 2, to a set of parts is wanted"
        for tau_d, found in answer.items():
            if sentence := _no_names(found, parts):
                return f"at tau_d = {tau_d}: {sentence}"
            if hard := sorted({"teacher", "student"} & set(found)):
                return f"at tau_d = {tau_d} you name {hard[0]!r}: no temperature and no layer weight enters a hard loss"
            if more := sorted(set(found) - changed(tau_d)):
                return f"at tau_d = {tau_d} you name {more[0]!r}: what does it change to divide scores by this temperature?"
            if changed(tau_d) - set(found):
                return f"at tau_d = {tau_d} a part is missing: besides the temperature, the weights of the layers are others"
        return None

    say(1, wrong())


def equal_things(answer: Sequence[float] | None) -> None:
    """Notebook 07, exercise 2: the largest difference between seeds of the student, in points; how many pairs have p <= 0.05."""
    values = _points("student")
    means, pairs = values.mean(1), list(combinations(values, 2))

    def counted(test: Callable) -> int:
        return sum(test(a, b).pvalue <= 0.05 for a, b in pairs)

    apart, count = np.ptp(means), counted(ttest_rel)
    say(2, _judge(answer, lambda: (apart, count), {
        "the difference is wanted in points, not as a fraction": lambda: (apart / 100, count),
        "you have each pair twice: the order of two seeds does not matter": lambda: (apart, 2 * count),
        "you count with an unpaired test: the seeds answer the same queries": lambda: (apart, counted(ttest_ind)),
        "you count the pairs that do not differ": lambda: (apart, len(pairs) - count),
        "the first number is a difference of two queries: take the mean over the queries first":
            lambda: (max(np.abs(a - b).max() for a, b in pairs), count),
        "the largest difference is right, the number of pairs is not": lambda: (apart, np.nan),
        "the number of pairs is right, the largest difference is not": lambda: (np.nan, count),
    }, "neither number: one MRR@10 per seed, and for each pair of seeds a paired t-test over the queries", rtol=0.01))


def queries_needed(answer: Callable[[np.ndarray, float], float] | None) -> None:
    """Notebook 07, exercise 3: differences (Q,), an effect -> queries for a two-sided test at 0.05 to find it in 80% of cases."""
    draw, both, found = np.random.default_rng(7), norm.ppf(0.975), norm.ppf(0.8)
    cases = [(draw.normal(mean, sd, 500), effect) for mean, sd, effect in ((0.2, 7, 0.4), (1, 5, 0.3), (-0.4, 12, 1.1))]

    def right(d: np.ndarray, effect: float, errors: float = both + found) -> float:
        return (errors * d.std(ddof=1) / effect) ** 2

    say(3, _judge(answer, right, {
        "that is section 8's number: it misses an effect of this size half of the time": partial(right, errors=both),
        "that is for a one-sided test": partial(right, errors=norm.ppf(0.95) + found),
        "that is for two independent groups: the differences are paired already": lambda d, effect: 2 * right(d, effect),
        "the number of queries grows with the square of spread over effect": lambda d, effect: np.sqrt(right(d, effect)),
        "the effect to be found is given: do not take the observed mean": lambda d, effect: right(d, d.mean()),
        "the spread is that of one difference: do not divide it by the root of the number of queries":
            lambda d, effect: right(d, effect) / len(d),
    }, "not the number: how many standard errors must the effect be away from zero, and how large is one with n queries?", cases,
        rtol=0.01))


# --- 08 Progressive distillation


def stops_at(answer: Sequence[float] | None) -> None:
    """Notebook 08, exercise 1: where section 5's total is lowest, from copy (0) to teacher (1), with keep at 0 and at 10."""
    t, before = torch.tensor([[4.0, 1, 0], [3, 2, 0]]), torch.tensor([[1.0, 2, 0], [2, 1, 0]])  # (B, C), section 5
    way, terms = torch.linspace(0, 2, 2001).double(), Terms()
    points = before + way[:, None, None] * (t - before)  # (W, B, C)

    def lowest(weight: float, of_hard: float = terms.hard) -> float:
        soft, keep = (terms.tau_d**2 * losses.kl(anchor, points, terms.tau_d).mean(-1) for anchor in (t, before))  # (W,)
        hard = losses.nll(points, torch.tensor([0, 0])).mean(-1)  # (W,)
        return way[(of_hard * hard + terms.soft * soft + weight * keep).argmin()].item()

    free, held = lowest(0), lowest(10)
    say(1, _judge(answer, lambda: (free, held), {
        "the two are the wrong way round: which weight holds the student back?": lambda: (held, free),
        "with keep 10 it does not stay at the copy: there keep pushes nothing, and the teacher does": lambda: (free, 0),
        "the hard loss is left out: it pulls a little further than the teacher": lambda: (lowest(0, 0), lowest(10, 0)),
        "that is where it stops with the weight 1": lambda: (lowest(1), lowest(1)),
        "with keep 0 it is right, with keep 10 not": lambda: (free, np.nan),
        "with keep 10 it is right, with keep 0 not: what still pulls, and what holds back?": lambda: (np.nan, held),
    }, "neither is where the total is lowest: add the three terms with their weights, point by point", rtol=0, atol=0.006))


@cache
def _trainings(keep: float) -> dict[str, Trained]:
    """Whatever is trained for PROD's chain, by name."""
    chain = PROD(scale("smoke"), progression=Progression(terms=Terms(keep=keep)))
    teachers = {f"{name} teacher": stage.teacher for name, stage in zip(("12DE", "12CE", "24CE"), chain.stages, strict=False)}
    stages = {f"stage {i}": stage for i, stage in enumerate(chain.stages, start=1)}
    return {"student": chain.pipeline.student} | teachers | stages | {"direct": chain.direct}


def trained_anew(answer: Collection[str] | None) -> None:
    """Notebook 08, exercise 2: which trainings of the chain are not read from runs/ once the weight of keep is 10."""
    def wrong() -> str | None:
        if answer is None or answer is ...:
            return NOT_YET
        usual, other = _trainings(Terms.keep), _trainings(10.0)
        changed = {name for name in usual if usual[name] != other[name]}
        if sentence := _no_names(answer, tuple(usual)):
            return sentence
        more, less = set(answer) - changed, changed - set(answer)
        if "stage 1" in more:
            return "stage 1 has no copy to keep near to: its weight is 0 whatever you set"
        if more:
            return f"{sorted(more)[0]} is trained before anything that has a copy"
        if any(name.startswith("stage") for name in less):
            return "a stage is missing: what has a copy is changed, and so is what starts from a changed student"
        if any(name.endswith("teacher") for name in less):
            return "a teacher is missing: who mined the negatives that it is trained on?"
        return "something is missing that keeps nothing itself: look at its teacher and its negatives" if less else None

    say(2, wrong())


def _ranks() -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Ranks (Q,) of the first relevant passage by student and teacher, 0 where there is none, and the last rank that counts."""
    draw = np.random.default_rng(8)
    return [(draw.integers(0, top, 200), draw.integers(0, top, 200), last) for top, last in ((6, 4), (25, 15), (20, 10))]


def lagging(answer: Callable[[np.ndarray, np.ndarray, int], Sequence[int]] | None) -> None:
    """Notebook 08, exercise 3: ranks (Q,) by student and teacher, the last rank -> the queries that the teacher ranks higher."""
    def of(mask: Callable) -> Callable:
        return lambda s, t, last: np.flatnonzero(mask(s, t, last))

    def right(s: np.ndarray, t: np.ndarray, last: int) -> np.ndarray:
        return (t > 0) & (t < s) & (s <= last)

    say(3, _judge(answer, of(right), {
        "a rank of 0 is no rank: where the teacher has not found the passage it does not rank it higher":
            of(lambda s, t, last: (t < s) & (s <= last)),
        "equal ranks are included, and with them queries that the student answers already, at rank 1":
            of(lambda s, t, last: (t > 0) & (t <= s) & (s <= last)),
        "equal ranks are included, and with them rank 1 and what neither has found": of(lambda s, t, last: (t <= s) & (s <= last)),
        "the last rank counts too": of(lambda s, t, last: (t > 0) & (t < s) & (s < last)),
        "teacher and student are the wrong way round": of(lambda s, t, last: right(t, s, last)),
        "that is PROD's own filter: the teacher need not be first, only higher":
            of(lambda s, t, last: (t == 1) & (s >= 2) & (s <= last)),
        "queries come in whose passage the student has not found: its rank, 0, is not from 2 to the last":
            of(lambda s, t, last: right(s, t, last) | (t > 0) & (s == 0)),
        "that is true or false for each query, and the numbers of the queries are wanted": right,
    }, "not these queries: take the table of section 5 and go through it line by line", _ranks()))


# --- 09 Assistants


def farther_together(answer: Sequence[Sequence[float]] | None) -> None:
    """Notebook 09, exercise 1: a teacher and two assistants (3, 4) whose mean is farther from it, by the footrule, than either."""
    def wrong() -> str | None:
        if answer is None or answer is ...:
            return NOT_YET
        try:
            rows = torch.tensor(np.asarray(answer, float))
        except Exception:
            rows = torch.empty(0)
        if rows.shape != (3, 4):
            return "three rows of four numbers are wanted: the teacher, the first assistant, the second"
        if not (rows >= 0).all() or not torch.allclose(rows.sum(1), torch.ones(3).double(), atol=1e-6):
            return "a row is no distribution: its numbers must not be negative and must sum to 1"
        t, a, b = rows
        fused = losses.fuse(rows[1:].log()).softmax(-1)
        for name, row in {"the teacher": t, "the first assistant": a, "the second assistant": b, "the mean": fused}.items():
            if len(row.round(decimals=9).unique()) < len(row):
                return f"{name} gives two passages the same probability: section 7 shows what ties do to ranks"
        together, first, second = (losses.footrule(t, row) for row in (fused, a, b))
        if together <= min(first, second):
            return "the mean is no farther than either assistant"
        return "the mean is farther than one assistant, not than both" if together <= max(first, second) else None

    say(1, wrong())


def _assistants() -> list[tuple[Tensor, Tensor]]:
    """Scores (A, C) of assistants and their weights (A,), in tenths; the last are far apart."""
    draw, weights = torch.Generator().manual_seed(9), ([0.5, 0.3, 0.2], [0.9, 0.1], [0.1, 0.2, 0.7], [0.6, 0.4])
    scores = [*(2 * torch.randn(len(w), 6, generator=draw) for w in weights[:3]), torch.tensor([[900.0, 0, -900], [0, 900, -900]])]
    return [(s.double(), torch.tensor(w).double()) for s, w in zip(scores, weights, strict=True)]


def weighted_fusion(answer: Callable[[Tensor, Tensor], Tensor] | None) -> None:
    """Notebook 09, exercise 2: scores (A, C), weights (A,) -> logarithms (C,) of the weighted mean of the distributions."""
    def right(scores: Tensor, weights: Tensor) -> Tensor:
        return losses.fuse(scores.repeat_interleave((10 * weights).round().long(), 0))

    def over(scores: Tensor, weights: Tensor) -> Tensor:
        return (weights[:, None] * scores).sum(0)  # (C,)

    wrong = _judge(answer, right, {
        "you take the mean of scores and not of distributions": over,
        "you take the mean of scores, then a softmax: whoever has large scores outvotes the others, take the mean of distributions":
            lambda scores, weights: over(scores, weights).log_softmax(-1),
        "you take the mean of log-probabilities: that is a product of distributions, not their mean":
            lambda scores, weights: over(scores.log_softmax(-1), weights),
        "the weights are not used": lambda scores, weights: losses.fuse(scores),
        "probabilities come out, and their logarithms are wanted": lambda scores, weights: right(scores, weights).exp(),
        "the weights multiply logarithms: weighting a probability adds the weight's logarithm":
            lambda scores, weights: (weights[:, None] * scores.log_softmax(-1)).logsumexp(0),
        "the scores are not normalised: each assistant needs its own softmax":
            lambda scores, weights: (scores + weights[:, None].log()).logsumexp(0),
    }, "not the logarithms of the weighted mean: do their exponentials sum to 1?", _assistants())
    say(2, "an exponential underflowed: stay in logarithms" if wrong == "a value is not finite" else wrong)


def _distances() -> list[tuple[np.ndarray]]:
    """Distances (7, steps) of three assistants and of their four fusions."""
    draw, found = np.random.default_rng(9), []
    for steps in (12, 40, 7):
        plain = draw.gamma(3, 0.3, (3, steps))
        fused = [plain[members].mean(0) * draw.uniform(0.3, 1, steps) for members in ([0, 1], [0, 2], [1, 2], [0, 1, 2])]
        found.append((np.stack([*plain, *fused]),))
    return found


def share_lost(answer: Callable[[np.ndarray], float] | None) -> None:
    """Notebook 09, exercise 3: distances (7, steps) -> the share of what choosing wins that is lost by always fusing all three."""
    def right(
        far: np.ndarray, usual: Callable = lambda far: far[:3].mean(), near: Callable = lambda far: far.min(0).mean()
    ) -> float:
        return (far[-1].mean() - near(far)) / (usual(far) - near(far))

    say(3, _judge(answer, right, {
        "your nearest is one assistant for all batches: take the minimum in each batch, then the mean":
            partial(right, near=lambda far: far.mean(1).min()),
        "your nearest is the smallest distance of all: take the minimum in each batch, then the mean": partial(right, near=np.min),
        "compare with a plain assistant at random: the fused ones are in your mean too": partial(right, usual=np.mean),
        "compare with a plain assistant at random: you take the best plain one for all batches":
            partial(right, usual=lambda far: far[:3].mean(1).min()),
        "that is the share that is kept": lambda far: 1 - right(far),
        "that is how much farther all three are: divide by what choosing wins": lambda far: far[-1].mean() - far.min(0).mean(),
        "the mean is over shares of single batches: take the mean distances first":
            lambda far: np.mean((far[-1] - far.min(0)) / (far[:3].mean(0) - far.min(0))),
    }, "not the share: (always three - nearest) over (random plain one - nearest), each a mean over the batches", _distances()))
