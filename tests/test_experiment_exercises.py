"""The checks of lessons 06 to 09: right answers, none, mistakes, answers of a wrong kind."""

import json
import re
from itertools import combinations
from math import log, log2
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from toys import scale

from leadkit import companion_losses, losses
from leadkit.experiments.assisted import fusions
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import TEACHERS
from leadkit.lessons.exercises import (
    EXERCISES,
    equal_things,
    farther_together,
    ignorant_loss,
    lagging,
    paired_p,
    queries_needed,
    released_parts,
    share_lost,
    spread_of_difference,
    stops_at,
    weighted_fusion,
)

ROOT = Path(__file__).parent.parent
CHECKS = [
    ignorant_loss,
    paired_p,
    spread_of_difference,
    released_parts,
    equal_things,
    queries_needed,
    stops_at,
    lagging,
    farther_together,
    weighted_fusion,
    share_lost,
]
FUNCTIONS = [ignorant_loss, paired_p, queries_needed, lagging, weighted_fusion, share_lost]


def committed(experiment, folder="classroom"):
    """(S, Q) in points, read without the package."""
    folder = ROOT / "data" / "results" / folder
    rows = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
    seeds = {
        row["seed"]: row["per_query"]["RR@10"] for row in rows if row["experiment"] == experiment
    }
    with np.load(folder / "per-query.npz") as arrays:
        return 100 * np.array([arrays[seeds[seed]] for seed in sorted(seeds)])


LEAD, RD = committed("CB LEAD"), committed("CB RD")
STUDENT = committed("student", "first-classroom")
APART = STUDENT.mean(1).max() - STUDENT.mean(1).min()
COUNT = sum(stats.ttest_1samp(a - b, 0).pvalue <= 0.05 for a, b in combinations(STUDENT, 2))
NORMAL = stats.norm.ppf([0.975, 0.8]).sum()
T, A, B = [0.1, 0.59, 0.22, 0.09], [0.59, 0.14, 0.18, 0.09], [0.11, 0.17, 0.23, 0.49]


def candidates(batch, passages, teacher):
    return passages if teacher == "CE" else batch * passages


def ignorant(batch, passages, teacher):
    return log(candidates(batch, passages, teacher))


def t_test(a, b):
    d = a.mean(0) - b.mean(0)
    return 2 * stats.t.sf(abs(d.mean()) / (d.std(ddof=1) / len(d) ** 0.5), len(d) - 1)


def needed(d, effect):
    return NORMAL**2 * d.var(ddof=1) / effect**2


def behind(student, teacher, last):
    return [q for q, (s, t) in enumerate(zip(student, teacher, strict=True)) if 0 < t < s <= last]


def fused(scores, weights):
    p = scores.softmax(-1)
    found = sum(w * row for w, row in zip(weights, p, strict=True)).log()
    # where all members underflow, from the largest logarithm
    return torch.where(
        found.isfinite(), found, (scores.log_softmax(-1) + weights.log()[:, None]).amax(0)
    )


def lost(far):
    nearest = np.mean([min(column) for column in far.T])
    return (far[6].mean() - nearest) / (far[:3].mean() - nearest)


RIGHT = {
    ignorant_loss: [ignorant, lambda *case: torch.tensor(ignorant(*case), requires_grad=True)],
    paired_p: [t_test],
    spread_of_difference: [
        np.std([x - y for x, y in zip(LEAD.mean(1), RD.mean(1), strict=True)], ddof=1)
    ],
    released_parts: [{1: {"layer"}, 2: ["response", "layer"]}],
    equal_things: [(APART, COUNT), [round(APART, 2), COUNT], np.array([APART, COUNT])],
    queries_needed: [needed, lambda d, effect: int(np.ceil(needed(d, effect)))],
    stops_at: [(1.01, 0.09), [1.0086, 0.0943]],
    lagging: [behind],
    farther_together: [
        (T, A, B),
        torch.tensor([T, A, B]),  # the last is not so for the mean of scores, nor of logarithms
        [[0.28, 0.17, 0.06, 0.49], [0.22, 0.34, 0.02, 0.42], [0.17, 0.14, 0.65, 0.04]],
    ],
    weighted_fusion: [fused, lambda scores, weights: fused(scores, weights).numpy()],
    share_lost: [lost],
}

WRONG = [
    # 06
    (ignorant_loss, candidates, "that is the number of candidates"),
    (ignorant_loss, lambda *case: log(candidates(*case) - 1), "the positive is a candidate too"),
    (
        ignorant_loss,
        lambda b, n, t: log(n if t == "CE" else b),
        "every query of the batch brings all its passages",
    ),
    (ignorant_loss, lambda b, n, t: log(n), "you give every query its own passages only"),
    (ignorant_loss, lambda b, n, t: log(b * n), "you score every query against all passages"),
    (
        ignorant_loss,
        lambda b, n, t: log(n if t in ("CE", None) else b * n),
        "the control has no teacher",
    ),
    (ignorant_loss, lambda *case: log2(candidates(*case)), "not the hard loss of equal scores"),
    (
        paired_p,
        lambda a, b: stats.ttest_ind(a.mean(0), b.mean(0)).pvalue,
        "that is an unpaired test",
    ),
    (
        paired_p,
        lambda a, b: stats.ttest_1samp((a - b).ravel(), 0).pvalue,
        "every query counts once for each seed",
    ),
    (
        paired_p,
        lambda a, b: stats.ttest_1samp((a - b).mean(1), 0).pvalue,
        "that is a test over the seeds",
    ),
    (paired_p, lambda a, b: t_test(a, b) / 2, "that is one-sided"),
    (paired_p, lambda a, b: t_test(a[:1], b[:1]), "that is one seed"),
    (
        paired_p,
        lambda a, b: t_test(*(x[:, a.mean(0) != b.mean(0)] for x in (a, b))),
        "queries that both answer alike are dropped",
    ),
    (paired_p, lambda a, b: 0.5, "not the p-value"),
    (spread_of_difference, (LEAD - RD).mean(0).std(ddof=1), "that is the sd over queries"),
    (spread_of_difference, (LEAD - RD).std(ddof=1), "that is the sd over all values"),
    (
        spread_of_difference,
        np.hypot(LEAD.mean(1).std(ddof=1), RD.mean(1).std(ddof=1)),
        "that is the sd of two independent",
    ),
    (spread_of_difference, LEAD.mean(1).std(ddof=1), "that is the sd of LEAD alone"),
    (spread_of_difference, (LEAD - RD).mean(1).std(), "divide by one less"),
    (spread_of_difference, stats.sem((LEAD - RD).mean(1)), "that is the standard error"),
    (spread_of_difference, (LEAD - RD).mean(1).std(ddof=1) / 100, "points are wanted"),
    (spread_of_difference, 3, "not the sd:"),
    # 07
    (
        released_parts,
        {1: {"student"}, 2: {"layer"}},
        "at tau_d = 1 you name 'student': no temperature",
    ),
    (
        released_parts,
        {1: {"layer"}, 2: {"layer", "teacher"}},
        "at tau_d = 2 you name 'teacher': no temperature",
    ),
    (
        released_parts,
        {1: {"layer", "response"}, 2: set()},
        "at tau_d = 1 you name 'response': what does it change",
    ),
    (released_parts, {1: set(), 2: set()}, "at tau_d = 1 a part is missing"),
    (released_parts, {1: {"layer"}, 2: {"layer"}}, "at tau_d = 2 a part is missing"),
    (
        released_parts,
        {1: {"total"}, 2: {"layer"}},
        "at tau_d = 1: 'total' is not among the names: layer, response",
    ),
    (released_parts, {1: "layer", 2: {"layer"}}, "at tau_d = 1: a set of names is wanted"),
    (equal_things, (APART / 100, COUNT), "the difference is wanted in points"),
    (equal_things, (APART, 2 * COUNT), "you have each pair twice"),
    (
        equal_things,
        (APART, sum(stats.ttest_ind(a, b).pvalue <= 0.05 for a, b in combinations(STUDENT, 2))),
        "you count with an unpaired test",
    ),
    (equal_things, (APART, 10 - COUNT), "you count the pairs that do not differ"),
    (equal_things, (100, COUNT), "the first number is a difference of two queries"),
    (equal_things, (APART, 7), "the largest difference is right"),
    (equal_things, (5, COUNT), "the number of pairs is right"),
    (equal_things, (5, 7), "neither number"),
    (
        queries_needed,
        lambda d, effect: (1.96 * d.std() / effect) ** 2,
        "that is section 8's number",
    ),
    (
        queries_needed,
        lambda d, effect: ((1.645 + 0.842) * d.std() / effect) ** 2,
        "that is for a one-sided test",
    ),
    (queries_needed, lambda d, effect: 2 * needed(d, effect), "that is for two independent groups"),
    (
        queries_needed,
        lambda d, effect: needed(d, effect) ** 0.5,
        "the number of queries grows with the square",
    ),
    (queries_needed, lambda d, effect: needed(d, d.mean()), "the effect to be found is given"),
    (
        queries_needed,
        lambda d, effect: NORMAL**2 * stats.sem(d) ** 2 / effect**2,
        "the spread is that of one difference",
    ),
    (queries_needed, lambda d, effect: 6980, "not the number"),
    # 08
    (stops_at, (0.09, 1.01), "the two are the wrong way round"),
    (stops_at, (1.01, 0), "with keep 10 it does not stay at the copy"),
    (stops_at, (1.0, 0.09), "the hard loss is left out"),
    (stops_at, (0.5, 0.5), "that is where it stops with the weight 1"),
    (stops_at, (1.01, 0.3), "with keep 0 it is right, with keep 10 not"),
    (stops_at, (1.4, 0.09), "with keep 10 it is right, with keep 0 not"),
    (stops_at, (0.8, 0.3), "neither is where the total is lowest"),
    (lagging, lambda s, t, last: np.where((t < s) & (s <= last))[0], "a rank of 0 is no rank"),
    (
        lagging,
        lambda s, t, last: [q for q in range(200) if 0 < t[q] <= s[q] <= last],
        "equal ranks are included, and with them q",
    ),
    (
        lagging,
        lambda s, t, last: [q for q in range(200) if t[q] <= s[q] <= last],
        "equal ranks are included, and with them rank",
    ),
    (lagging, lambda s, t, last: behind(s, t, last - 1), "the last rank counts too"),
    (lagging, lambda s, t, last: behind(t, s, last), "teacher and student are the wrong way round"),
    (
        lagging,
        lambda s, t, last: [q for q in behind(s, t, last) if t[q] == 1],
        "that is PROD's own filter",
    ),
    (
        lagging,
        lambda s, t, last: behind(
            np.where((s == 0) & (t > 0), last, s), np.where(s == 0, t.clip(0, 1), t), last
        ),
        "queries come in whose passage the student has not found",
    ),
    (
        lagging,
        lambda s, t, last: [q in behind(s, t, last) for q in range(len(s))],
        "that is true or false for each query",
    ),
    (lagging, lambda s, t, last: range(200), "lagging has shape (200,): it must be"),
    (lagging, lambda s, t, last: behind(s, t, last)[::-1], "not these queries"),
    # 09
    (farther_together, (T, A, [0.5, 0.5, 0.5, -0.5]), "a row is no distribution"),
    (farther_together, (T, A, [0.1, 0.2, 0.3, 0.3]), "a row is no distribution"),
    (farther_together, (T, A, [np.nan] * 4), "a row is no distribution"),
    (farther_together, ([0.25] * 4, A, B), "the teacher gives two passages the same probability"),
    (farther_together, (T, A, [0.3, 0.3, 0.22, 0.18]), "the second assistant gives two passages"),
    (
        farther_together,
        (T, [0.4, 0.3, 0.2, 0.1], [0.2, 0.3, 0.4, 0.1]),
        "the mean gives two passages",
    ),
    (farther_together, (T, A, A), "the mean is no farther than either assistant"),
    (
        farther_together,
        (A, T, [0.58, 0.15, 0.18, 0.09]),
        "the mean is farther than one assistant, not than both",
    ),
    (farther_together, (T, A), "three rows of four numbers are wanted"),
    (
        weighted_fusion,
        lambda scores, weights: weights @ scores,
        "you take the mean of scores and not of distributions",
    ),
    (
        weighted_fusion,
        lambda scores, weights: (weights @ scores).log_softmax(0),
        "you take the mean of scores, then a softmax",
    ),
    (
        weighted_fusion,
        lambda scores, weights: weights @ scores.log_softmax(1),
        "you take the mean of log-probabilities",
    ),
    (
        weighted_fusion,
        lambda scores, weights: fused(scores, torch.ones(len(weights)) / len(weights)),
        "the weights are not used",
    ),
    (
        weighted_fusion,
        lambda scores, weights: weights @ scores.softmax(1),
        "probabilities come out",
    ),
    (
        weighted_fusion,
        lambda scores, weights: (weights[:, None] * scores.log_softmax(1)).logsumexp(0),
        "the weights multiply",
    ),
    (
        weighted_fusion,
        lambda scores, weights: (weights.log()[:, None] + scores).logsumexp(0),
        "the scores are not normalised",
    ),
    (
        weighted_fusion,
        lambda scores, weights: (weights @ scores.softmax(1)).log(),
        "an exponential underflowed",
    ),
    (
        weighted_fusion,
        lambda scores, weights: fused(scores, weights) + 1,
        "not the logarithms of the weighted mean",
    ),
    (
        share_lost,
        lambda far: (far[6].mean() - far.mean(1).min()) / (far[:3].mean() - far.mean(1).min()),
        "your nearest is one",
    ),
    (
        share_lost,
        lambda far: (far[6].mean() - far.min()) / (far[:3].mean() - far.min()),
        "your nearest is the smallest",
    ),
    (
        share_lost,
        lambda far: (far[6] - far.min(0)).mean() / (far - far.min(0)).mean(),
        "compare with a plain assistant at random: the fused",
    ),
    (
        share_lost,
        lambda far: (far[6] - far.min(0)).mean() / (far[:3].mean(1).min() - far.min(0).mean()),
        "compare with a plain assistant at random: you take the best",
    ),
    (share_lost, lambda far: 1 - lost(far), "that is the share that is kept"),
    (
        share_lost,
        lambda far: (far[6] - far.min(0)).mean(),
        "that is how much farther all three are",
    ),
    (
        share_lost,
        lambda far: np.mean((far[6] - far.min(0)) / (far[:3].mean(0) - far.min(0))),
        "the mean is over shares",
    ),
    (share_lost, lambda far: 0.3, "not the share"),
]


def said(capsys, check, answer):
    """What the check prints after the exercise's number."""
    check(answer)
    out = capsys.readouterr().out
    assert (
        out.startswith(f"exercise {check.number}: ") and out.endswith("\n") and out.count("\n") == 1
    )
    return out.partition(": ")[2].strip()


def name(check):
    return check.__name__


def test_a_half_answer_is_no_answer_yet(capsys):
    assert said(capsys, released_parts, {1: {"layer"}, 2: None}) == "no answer yet"


def test_every_check_is_tried():
    assert set(CHECKS) == set(RIGHT) == {check for check, _, _ in WRONG}
    assert [e for e in EXERCISES.values() if e.lesson >= 6] == CHECKS


ODD = [
    torch.tensor(7.5),
    "stage 2",
    "",
    b"x",
    1,
    True,
    10**400,
    1j,
    np.nan,
    np.inf,
    [],
    [1],
    [[1, 2], 3],
    [None, None],
    {},
    {1: 2, 2: 3},
    set(),
    {1},
    [["a"]],
    np.zeros((2, 3)),
    np.array(["a", "b"]),
    torch.zeros(3, requires_grad=True),
    [torch.zeros(2), 1],
    object(),
    len,
    lambda: 1,
    lambda *case: "x",
    lambda *case: {"a": 1},
    lambda *case: [1, [2]],
    lambda *case: case,
    lambda *case: np.nan,
    lambda *case: 1 / 0,
    lambda *case: torch.ones(7, requires_grad=True),
]


@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_answers(capsys, check):
    """The right answers, none, answers of a wrong kind, and each mistake with its sentence."""
    for number, answer in enumerate(RIGHT[check]):
        assert said(capsys, check, answer) == "right", f"right answer {number}"
    functions = (lambda *case: None, lambda *case: ...) if check in FUNCTIONS else ()
    for nothing in (None, ..., *functions):
        assert said(capsys, check, nothing) == "no answer yet", nothing
    for number, answer in enumerate(ODD):
        sentence = said(capsys, check, answer)
        assert sentence not in ("right", "no answer yet"), f"odd answer {number}: {answer!r}"
        assert len(sentence.split()) > 3, f"odd answer {number}: {sentence}"
    for about, answer, sentence in WRONG:
        if about is check:
            printed = said(capsys, check, answer)
            assert printed.startswith(sentence), f"{sentence!r} is not said, but {printed!r}"


def test_the_learner_cannot_change_what_the_check_asks(capsys):
    def in_place(s, t, last):
        found = behind(s.copy(), t.copy(), last)
        s[:], t[:] = 0, 0
        return found

    assert said(capsys, lagging, in_place) == "right"


def test_a_function_that_fails_says_how(capsys):
    assert said(capsys, share_lost, lambda a, b: 1).startswith("share_lost stops with TypeError: ")
    assert said(capsys, share_lost, 3) == "share_lost must be a function, not int"
    assert said(capsys, stops_at, lambda: 3) == "answer must be numbers, not a function"
    assert said(capsys, stops_at, 3) == "answer has shape (): it must be (2,)"


# --- what is right, by other means


def test_candidates_are_those_of_the_batches(common):
    for teacher in (None, *TEACHERS):
        pipeline = Pipeline(scale(common), teacher=teacher or "CB")
        stage, data = pipeline.distil("RD" if teacher else "student"), pipeline.scale.data
        scores = torch.zeros(1, data.batch, data.batch * data.passages)
        seen = stage.batches(stage.tower)(0).candidates(scores).shape[-1]
        assert seen == candidates(data.batch, data.passages, teacher), teacher


def test_the_number_of_queries_finds_the_effect_in_four_of_five_cases():
    draw = np.random.default_rng(0)
    n = round(needed(draw.normal(0, 5, 100_000), 1.0))
    found = stats.ttest_1samp(draw.normal(1.0, 5, (4000, n)), 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_where_the_total_is_lowest_by_the_loss_itself(capsys):
    t, before = torch.tensor([[4.0, 1, 0], [3, 2, 0]]), torch.tensor([[1.0, 2, 0], [2, 1, 0]])
    way = np.linspace(0, 1.4, 141)
    points, positive = [before + x * (t - before) for x in way], torch.tensor([0, 0])
    total = [
        [
            companion_losses.progressive_loss(s, t, before, positive, keep=keep).total.item()
            for s in points
        ]
        for keep in (0, 10)
    ]
    assert said(capsys, stops_at, way[np.argmin(total, axis=1)]) == "right"


def test_no_mean_is_farther_than_both_by_kl():
    """Why exercise 1 of lesson 09 has no answer for KL."""
    t, a, b = torch.randn(3, 1000, 4, generator=torch.Generator().manual_seed(0))
    together = losses.kl(t, companion_losses.fuse(torch.stack([a, b])))
    assert (together <= torch.maximum(losses.kl(t, a), losses.kl(t, b)) + 1e-6).all()
    far = [
        companion_losses.footrule(t, other)
        for other in (companion_losses.fuse(torch.stack([a, b])), a, b)
    ]
    assert (far[0] > torch.maximum(*far[1:])).any()


def test_the_last_fusion_is_of_all_three():
    assert fusions(3)[:3] == [(0,), (1,), (2,)] and fusions(3)[-1] == (0, 1, 2)


# --- the glossary and the instructor's page

NOTEBOOKS = ROOT / "notebooks"
GLOSSARY = (NOTEBOOKS / "GLOSSARY.md").read_text()
WORDS = [line for line in GLOSSARY.splitlines() if line.startswith("- ")]


def test_links_lead_somewhere():
    for page in ("GLOSSARY.md", "INSTRUCTOR.md"):
        targets = re.findall(r"\]\(([^)#]+)\)", (NOTEBOOKS / page).read_text())
        assert targets, page
        assert [target for target in targets if not (NOTEBOOKS / target).exists()] == [], page
        assert f"notebooks/{page}" in (ROOT / "README.md").read_text()


def sources(path):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def test_the_cells_that_the_instructor_names_are_there():
    named = re.findall(r"(0\d) §\d+ \*(?!\*)([^*]+)\*", (NOTEBOOKS / "INSTRUCTOR.md").read_text())
    texts = {path.name[:2]: " ".join(sources(path)) for path in NOTEBOOKS.glob("0*.ipynb")}
    assert len(named) > 20
    assert [name for name in named if name[1] not in texts[name[0]]] == []


def test_every_letter_has_its_line():
    symbols = [line.split("|")[1] for line in GLOSSARY.splitlines() if line.startswith("| $")]
    letters = re.findall(r"\$([^$]+)\$", " ".join(symbols))
    assert len(letters) == len(set(letters))
    assert {*"BnNCXYHLK", r"\tau_d", r"\tau_l"} <= set(letters)


def test_words_are_in_order_each_once():
    words = [re.match(r"- \*\*(.+?)\*\*: ", line)[1].strip("`").casefold() for line in WORDS]
    assert words == sorted(set(words))


def test_a_word_is_used_in_its_lesson():
    texts = {path.name: " ".join(sources(path)).casefold() for path in NOTEBOOKS.glob("0*.ipynb")}
    for line in WORDS:
        words = re.match(r"- \*\*(.+?)\*\*: ", line)[1].replace("\\", "").replace("`", "")
        text = texts[re.search(r"\]\((0\d_\w+\.ipynb)\)$", line)[1]]
        used = [word.removesuffix("@k") in text for word in words.casefold().split(", ")]
        assert any(used), line
