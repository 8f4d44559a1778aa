"""PROD: the stages, the queries where the student lags, the chain; Table 9. Untrained encoders."""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import WORDS, data, isolate, save_each_step, scale, write_beir

from leadkit import companion_losses, paths
from leadkit.config import Schedule
from leadkit.data.sampling import Group, groups
from leadkit.experiments import lagging as lagging_module
from leadkit.experiments import store, tables
from leadkit.experiments.distillation import Distil, Mine, WarmUp
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.lagging import Lagging, rank
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.prod import PROD, STRIDE, Progression, prod_star, table_9
from leadkit.experiments.progressive import Progressive
from leadkit.experiments.store import Stage
from leadkit.experiments.texts import collection, queries_of
from leadkit.models.tower import Tower
from leadkit.results import paper
from leadkit.retrieval.runs import Run

LARGE = Tower("CE", "random:4x32", dropout=0.0)
PUBLISHED = Progressive(0.1, 0.9, 1.0, 4.0)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- one stage


def louder(stage, factor):
    return replace(stage, tower=replace(stage.tower, scale=factor))


def progress(name, method=PUBLISHED, teacher="CE", **changes):
    chain = Pipeline(scale(name), teacher=teacher)
    return Distil(
        data(name, passages=3),
        method,
        louder(chain.student, 2.0),  # far from uniform
        louder(chain.teacher, {"DE": 2.0, "CE": 10.0}[teacher]),
        chain.negatives,
        Schedule(4, 1e-2, warmup=0.0),
        **changes,
    )


@pytest.fixture
def models(monkeypatch):
    """Every model that was loaded, in order."""
    loaded, load = [], store.load
    monkeypatch.setattr(store, "load", lambda folder: loaded.append(load(folder)) or loaded[-1])
    return loaded


@pytest.mark.parametrize("teacher", ["DE", "CE"])
def test_keep_starts_at_zero_and_only_the_student_moves(teacher, common, models, monkeypatch):
    stage = progress(common, Progressive(0.2, 0.7, 0.5, 2.0), teacher)
    start, taught = state(stage.student.model()), state(stage.teacher.model())
    real, graphs = companion_losses.progressive_loss, set()

    def watch(*scores, **terms):
        graphs.add(tuple(score.requires_grad for score in scores))
        return real(*scores, **terms)

    monkeypatch.setattr(companion_losses, "progressive_loss", watch)
    models.clear()
    stage.done()
    student, frozen, before = models
    assert graphs == {(True, False, False, False)}  # of student, teacher, copy and positives
    assert (
        not same(state(student), start)
        and same(state(before), start)
        and same(state(frozen), taught)
    )
    for model in (frozen, before):
        assert not model.training and all(p.grad is None for p in model.parameters())
    assert same(state(stage.model()), state(student)) and not (stage.folder / "teacher").exists()
    first, *others = stage.log()
    assert (
        first["keep"] == pytest.approx(0, abs=1e-7)
        and len(others) == 3
        and others[0]["keep"] > 1e-3
        and all(row["keep"] > 0 for row in others)
    )
    for row in stage.log():
        assert row["total"] == pytest.approx(
            0.2 * row["student"] + 0.7 * row["response"] + 0.5 * row["keep"], rel=1e-5
        )
        assert row["student"] > 0 < row["response"]


def test_copy_is_not_disturbed_by_dropout(common):
    """The student itself drops states, so it differs from the copy at once.

    The copy answers alike at every step.
    """
    stage = progress(common)
    noisy = replace(
        stage, student=replace(stage.student, tower=replace(stage.student.tower, dropout=0.5))
    )
    assert noisy.log()[0]["keep"] > 1e-4
    still = replace(
        noisy, schedule=Schedule(2, 0.0, weight_decay=0.0), method=Progressive(0.0, 0.0, 1.0)
    )
    assert still.log()[0]["keep"] > 1e-4 and same(
        state(still.model()), state(noisy.student.model())
    )


def test_a_pull_back_keeps_the_student_nearer(common):
    stages = (progress(common, Progressive(keep=keep)) for keep in (1e-9, 50.0))
    longer = Schedule(24, 1e-2, warmup=0.0)  # so that the distance is far above rounding
    free, held = (replace(stage, schedule=longer).log() for stage in stages)
    assert free[0]["total"] == pytest.approx(held[0]["total"])
    assert held[-1]["keep"] < free[-1]["keep"] / 2


def test_without_keep_there_is_no_copy(common, models):
    stage = progress(common, Progressive(keep=0.0))
    stage.student.done(), stage.teacher.done(), stage.negatives.done()
    models.clear()
    assert all(row["keep"] == 0 for row in stage.log()) and len(models) == 2


def test_interrupted_stage_keeps_the_student_as_it_entered(common, monkeypatch):
    """Not as it was at the checkpoint: an interrupted stage has the log of an undisturbed one."""
    save_each_step(monkeypatch)
    whole = progress(common, seed=3)
    want, weights = whole.log(), state(whole.model())
    (whole.folder / "stage.json").unlink()
    (whole.folder / "log.json").unlink()
    real, calls = companion_losses.progressive_loss, []

    def breaks(*scores, **terms):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*scores, **terms)

    monkeypatch.setattr(companion_losses, "progressive_loss", breaks)
    with pytest.raises(KeyboardInterrupt):
        whole.done()
    assert whole.log() == want and len(calls) == 3 + 2 and same(state(whole.model()), weights)


def test_a_ce_scores_own_passages_and_epochs_count_them(common):
    chain = Pipeline(scale(common), teacher="CE")
    stage = progress(common, replace(PUBLISHED, epochs=2))
    batch = stage.batches(chain.student.tower)(0)
    assert batch.own and batch.passages.ids.shape[0] == 4 * 3
    assert not progress(common, teacher="DE").batches(chain.student.tower)(0).own
    assert len(stage.log()) == 2 * (24 // 4)  # 24 queries, 4 a batch; the schedule says 4 steps


# --- where the student lags


def test_rank_of_the_first_relevant_passage():
    run = Run(np.array([[7, 3, 5, -1], [1, 2, 3, 4]]), np.zeros((2, 4)))
    assert [rank(run, Group(0, relevant)) for relevant in ((7, 5), (5,), (3, 5), (8,))] == [
        1,
        3,
        2,
        0,
    ]
    assert rank(run, Group(1, (4,))) == 4


class Answers(torch.nn.Module):
    """Nothing but a tower: stands for a retriever whose ranking is given."""

    architecture, layers, width = "DE", 1, 8

    def __init__(self, tower):
        super().__init__()
        self.tower = tower


def lagging(name, monkeypatch, own, taught, **changes):
    """A stage whose two rankings are these.

    Query -> rows; of every other query neither has a relevant passage.
    """
    made, unlike = (
        data(name, passages=3, **changes),
        np.arange(30, 48),
    )  # no training query has a relevant passage there
    rows = {query: [*own.get(query, ()), *unlike][:18] for query in range(24)}
    student = Evaluate(made, WarmUp(made, Tower("DE", "random:1x8"), Schedule(1)), "train", 20)
    teacher = WarmUp(made, Tower("CE", "random:2x8"), Schedule(1))
    texts = queries_of(teacher.tower, made, "train")

    def rerank(model, queries, passages, first, depth):
        asked = [
            next(query for query in rows if np.array_equal(queries.row(i), texts.row(query)))
            for i in range(len(queries))
        ]
        assert first.rows.tolist() == [rows[query] for query in asked] and depth == 15
        assert all(
            {*rows[query]} & {query, query - 1} for query in asked
        )  # no work for a query that cannot lag
        return Run(
            np.array([[*taught.get(query, ()), *unlike][:18] for query in asked]), first.scores
        )

    table = np.array(list(rows.values()))
    monkeypatch.setattr(Evaluate, "done", lambda self, *how: self.folder)
    monkeypatch.setattr(Evaluate, "ranking", lambda self: Run(table, np.zeros(table.shape)))
    monkeypatch.setattr(WarmUp, "model", lambda self: Answers(self.tower))
    monkeypatch.setattr(WarmUp, "done", lambda self, *how: self.folder)
    monkeypatch.setattr(lagging_module, "rerank", rerank)
    return Lagging(made, student, teacher, 2, 4, 15)


def test_queries_that_the_teacher_answers_and_the_student_nearly(name, monkeypatch):
    """Query i's relevant passage is i; queries 1 and 5 have also 0 and 4.

    The student's ranks may be 2 to 4.
    """
    own = {
        0: [40, 0],
        1: [40, 41, 42, 0, 1],
        2: [2, 40],
        3: [40, 41, 42, 43, 3],
        4: [40, 4],
        5: [41, 5, 42, 4, 43],
        6: [40, 41, 42, 6],
        7: [40, 41, 7],
    }
    taught = {0: [0], 1: [1], 2: [2], 3: [3], 4: [40, 4], 5: [4], 6: [6]}
    # 2: first already; 3: only fifth; 4 and 7: not answered by the teacher
    stage = lagging(name, monkeypatch, own, taught)
    got = {g.query: g for g in stage.groups()}
    assert set(got) == {0, 1, 5, 6}
    assert got[5].relevant == (4, 5) and got[5].negatives == (
        41,
        42,
    )  # descending, n - 1 of them, no relevant one
    assert (
        got[0].negatives == (40, 30)
        and got[1].negatives == (40, 41)
        and got[6].negatives == (40, 41)
    )
    only = replace(stage, data=replace(stage.data, passages=5), last=2, first=2)
    with pytest.raises(ValueError, match="2 of 24 training queries"):
        only.groups()
    wide = replace(stage, first=1)
    assert {g.query for g in wide.groups()} == {0, 1, 2, 5, 6}
    assert {row["query"]: (row["student"], row["teacher"]) for row in stage.near()} == {
        0: (2, 1),
        1: (4, 1),
        4: (2, 2),
        5: (2, 1),
        6: (4, 1),
        7: (3, 0),
    }


@pytest.mark.parametrize("last", [2, 15])
def test_only_near_queries_are_re_ranked_and_nothing_is_lost(last, common):
    """Against the slow way: the teacher re-ranks every training query."""
    chain, made = Pipeline(scale(common), teacher="CE"), data(common, passages=3, batch=1)
    own = Evaluate(made, chain.student, "train", 18)
    slow, near = (
        replace(own, retriever=chain.teacher, first=own, rerank=15).ranking(),
        own.ranking(),
    )
    want = {
        g.query
        for g in groups(collection(common), "train")
        if rank(slow, g) == 1 and 2 <= rank(near, g) <= last
    }
    stage = Lagging(made, own, chain.teacher, 2, last, 15)
    assert {g.query for g in stage.groups()} == want and 0 < len(want) <= len(stage.near()) < 24
    assert all(
        row["teacher"] == rank(slow, Group(row["query"], tuple(row["relevant"])))
        for row in stage.near()
    )


def test_a_data_stage_without_queries_stops_with_one_sentence(name, monkeypatch):
    message = (
        "0 of 24 training queries are answered first by the teacher and 2 to 4 by the student, "
        "fewer than a batch of 4: "
        "stop before the data stage, or raise `last`"
    )
    stage = lagging(name, monkeypatch, {i: [i] for i in range(24)}, {i: [i] for i in range(24)})
    chain = Pipeline(scale(name))
    last = Distil(
        stage.data, Progressive(epochs=1), chain.student, chain.teacher, stage, Schedule(1)
    )
    for needs in (stage.groups, last.done):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            needs()
    assert stage.near() == [] and not (last.folder / "log.json").exists()


def test_the_data_stage_sees_every_confusing_negative(name, monkeypatch):
    """They are not drawn: each query meets the same n - 1 in every epoch."""
    own = {i: [40 + i % 3, 43 + i % 3, 46, i] for i in range(8)}
    stage = lagging(name, monkeypatch, own, {i: [i] for i in range(8)}, batch=2)
    chain = Pipeline(scale(name), teacher="CE")
    last = Distil(
        stage.data, Progressive(epochs=1), chain.student, chain.teacher, stage, Schedule(1)
    )
    sampler, seen = last.batches(chain.student.tower).sampler, set()
    assert sampler.steps == 4
    for step in range(3 * sampler.steps):
        for query, (positive, *negatives) in zip(
            *(rows.tolist() for rows in sampler(step)), strict=True
        ):
            assert positive in (query, query - 1) and set(negatives) == {
                40 + query % 3,
                43 + query % 3,
            }
            seen.add(query)
    assert seen == set(range(8))


# --- the chain


def test_shared_stages_are_the_very_same(name):
    base, shapes = Pipeline(scale(name), 1, "DE"), scale(name)
    first, second = PROD(shapes, LARGE, 1), PROD(shapes, LARGE, 1, Progression(last=9))
    one, two, three, four = first.stages
    assert (one.student.key, one.teacher.key, one.negatives.key) == (
        base.student.key,
        base.teacher.key,
        base.negatives.key,
    )
    assert [s.key for s in first.stages[:3]] == [
        s.key for s in second.stages[:3]
    ] and four.key != second.stages[3].key
    assert (
        first.direct.key == second.direct.key
        and first.direct.student == base.student
        and first.direct.teacher == three.teacher
    )
    assert first.direct.schedule.steps == sum(stage.schedule.steps for stage in (one, two, three))
    other = PROD(shapes, LARGE, 2).stages
    assert other[0].negatives.key == one.negatives.key and not {s.key for s in other} & {
        s.key for s in first.stages
    }


def test_the_last_teacher_is_by_default_the_scales_larger_one(name):
    teachers = [
        stage.teacher.tower for stage in PROD(scale(name, scaled=False, dropout=0.2)).stages
    ]
    assert teachers[2] == teachers[3] == replace(teachers[1], encoder="random:4x32") != teachers[1]
    assert (teachers[2].architecture, teachers[2].scale, teachers[2].dropout) == ("CE", 1.0, 0.2)


def test_chain_is_as_published(name):
    one, two, three, four = chain = PROD(scale(name), LARGE).stages
    assert [stage.student for stage in chain[1:]] == [one, two, three]  # each goes on from the last
    assert [s.teacher.tower.architecture for s in chain] == ["DE", "CE", "CE", "CE"]
    assert [s.teacher.tower.encoder for s in chain] == [
        "random:3x32",
        "random:3x32",
        "random:4x32",
        "random:4x32",
    ]
    assert [s.method for s in chain] == [
        replace(PUBLISHED, keep=0.0),
        PUBLISHED,
        PUBLISHED,
        replace(PUBLISHED, epochs=3),
    ]
    # mined by the 12DE that taught, then by the student, and so are the teachers' own negatives
    assert two.negatives == Mine(one.data, one.teacher) == two.teacher.negatives
    assert three.negatives == Mine(one.data, two) == three.teacher.negatives
    assert [s.data.passages for s in chain] == [
        2,
        4,
        4,
        4,
    ] and two.teacher.data.passages == three.teacher.data.passages == 4
    own, taught = four.negatives.student, four.negatives.teacher
    assert (
        own.retriever == three
        and taught == four.teacher == three.teacher
        and (own.split, own.depth) == ("train", 15)
    )
    assert (
        four.method.epochs,
        four.negatives.first,
        four.negatives.last,
        four.negatives.rerank,
    ) == (
        3,
        2,
        15,
        15,
    )
    assert four.schedule.learning_rate == pytest.approx(1e-3 * 1e-5 / 5e-5)
    assert len({s.seed for s in chain}) == 4
    recipe = PROD(scale(name), LARGE)
    assert {row: stage.retriever for row, stage in recipe.experiments().items()} == {
        "PROD direct": recipe.direct,
        "PROD stage 1": one,
        "PROD stage 2": two,
        "PROD stage 3": three,
        "PROD": four,
    }


def topics(folder):
    """80 training queries and 80 passages on 10 topics.

    Whatever is on a query's topic is relevant to it.
    """
    draw, split = (
        random.Random(0),
        {"train": range(80), "dev": range(80, 84), "test": range(84, 88)},
    )
    passages = {f"p{i}": " ".join(draw.choices(WORDS, k=8)) for i in range(80)}
    queries = {f"q{i}": " ".join(draw.choices(WORDS, k=3)) for i in range(88)}
    qrels = {
        name: {f"q{i}": {f"p{p}": 1 for p in range(i % 10, 80, 10)} for i in rows}
        for name, rows in split.items()
    }
    return write_beir(folder, passages, queries, qrels)


@pytest.mark.slow
def test_whole_chain_runs_and_a_second_time_runs_nothing(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    name, ran, run = topics(tmp_path / "topics"), [], Stage._run
    monkeypatch.setattr(Stage, "_run", lambda self, *how: ran.append(self) or run(self, *how))
    shapes = scale(name, data=data(name, batch=2))
    records = {key: stage.record() for key, stage in PROD(shapes, LARGE).experiments().items()}
    assert list(records) == ["PROD direct", "PROD stage 1", "PROD stage 2", "PROD stage 3", "PROD"]
    assert len({stage.key for stage in ran}) == len(ran)  # nothing twice
    kinds = [stage.kind for stage in ran]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "evaluate": 5 + 1,
        "warm-up": 5,
        "mine": 3,
        "distil": 5,
        "lagging": 1,
    }
    assert all(record["stage"]["retriever"]["kind"] == "distil" for record in records.values())
    last = PROD(shapes, LARGE).stages[3]
    behind = last.negatives.groups()
    assert 2 <= len(behind) < 80 and len(last.log()) == 3 * (len(behind) // 2)
    own = last.negatives.student.ranking()
    assert all(2 <= rank(own, g) <= 15 and len(g.negatives) == 3 for g in behind)
    # per step one teacher answers, from the second stage on the frozen copy as well; the student of
    # that stage mined for "direct"
    passes = [
        stage.cost()["teacher_passes"] for stage in PROD(shapes, LARGE).experiments().values()
    ]
    steps = shapes.distil.steps
    assert passes == [
        3 * steps + 3 * steps,
        steps,
        3 * steps,
        5 * steps,
        5 * steps + 2 * len(last.log()),
    ]
    ran.clear()
    again = {key: stage.record() for key, stage in PROD(shapes, LARGE).experiments().items()}
    assert again == records and ran == []
    star = table_9(shapes)["PROD* 12DE"]
    star.done()
    assert {stage.kind for stage in ran} == {"evaluate", "distil"}  # the warm-ups are there already


# --- Table 9


@pytest.mark.parametrize("lead", [False, True])
def test_each_teacher_of_table_9_teaches_the_student_of_the_last(lead, common, models):
    shapes, plus = scale(common), " + LEAD" if lead else ""
    chain = prod_star(shapes, 1, lead)
    assert list(chain) == [f"PROD*{plus} 12{a}" for a in ("DE", "CB", "CE")]
    one, two, three = chain.values()
    main = {a: Pipeline(shapes, 1, a) for a in ("DE", "CB", "CE")}
    assert one.key == main["DE"].distil("LEAD" if lead else "RD").key
    assert [s.teacher.key for s in chain.values()] == [
        pipeline.teacher.key for pipeline in main.values()
    ]
    assert (
        two.student == one
        and three.student == two
        and {s.negatives.key for s in chain.values()} == {main["CB"].negatives.key}
    )
    assert [s.seed for s in chain.values()] == [1, 1 + STRIDE, 1 + 2 * STRIDE]
    assert {s.method.name for s in chain.values()} == {"LEAD" if lead else "RD"}
    at_rate_0 = Schedule(2, 0.0, weight_decay=0.0)
    one.done()
    still = replace(three, schedule=at_rate_0, student=replace(two, schedule=at_rate_0))
    assert same(state(still.model()), state(one.model())) and not same(
        state(one.model()), state(one.student.model())
    )
    assert same(state(still.student.model()), state(one.model()))


def test_table_9_has_the_papers_rows_and_no_record_overwrites_another(name):
    shapes = scale(name)
    every = tables.experiments(
        replace(
            shapes,
            lead=replace(shapes.lead, k=1),
            student_encoder="random:6x32",
            teacher_encoder="random:12x32",
            larger_encoder="random:24x32",
        )
    )
    rows = table_9(shapes)
    assert list(rows) == [row for row in paper.TABLES[9].index if row.startswith("PROD*")]
    names = [*every, *rows, *PROD(shapes, LARGE).experiments()]
    assert len({re.sub(r"\W+", "-", row.lower()).strip("-") for row in names}) == len(names)
    assert {stage.split for stage in rows.values()} == {"test"}
    assert {stage.split for stage in table_9(shapes, split="dev").values()} == {"dev"}


# --- bad input, before any work


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda shapes: PROD(shapes, replace(LARGE, architecture="DE")),
            "large is a DE: the last teacher must be a CE",
        ),
        (
            lambda shapes: PROD(shapes, replace(LARGE, encoder=str(Path(__file__).parent))),
            "encoder '.*experiments': its tokeniser or",
        ),
        (lambda shapes: Progressive(keep=-1.0), "keep is -1.0: a weight must not be negative"),
        (lambda shapes: Progressive(tau_d=0.0), "tau_d is 0.0: a temperature must be positive"),
        (
            lambda shapes: Progression(first=1),
            "first, last, rerank are 1, 15, 15: they must be ranks in rising order, from 2",
        ),
        (lambda shapes: Progression(last=16), "first, last, rerank are 2, 16, 15"),
        (
            lambda shapes: Progression(epochs=0),
            "epochs is 0, passages 4: at least 1 and 2 are needed",
        ),
        (lambda shapes: Progression(passages=1), "epochs is 3, passages 1"),
    ],
)
def test_settings_that_cannot_be(make, message, name):
    with pytest.raises((ValueError, OSError), match=message):
        make(scale(name))
    assert not paths.RUNS.exists()
