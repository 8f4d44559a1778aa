"""The paper's scales: what the released scripts say, documents, and pairs that are cut."""

import random
from dataclasses import replace

import numpy as np
import pytest
from toys import WORDS, encoder, isolate, write_beir

from leadkit import config
from leadkit.config import Lead, Schedule
from leadkit.data.tokens import pair
from leadkit.experiments import distillation, method, prod, sweep, tables
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import TEACHERS
from leadkit.experiments.texts import passages_of, queries_of
from leadkit.models.tower import Tower, check_lengths, passage_in_pair

PAPERS = ("paper", "paper-document")


@pytest.fixture
def offline(monkeypatch):
    """Encoders of the hub are not looked at: of each only its name is known."""
    monkeypatch.setattr(distillation, "check", lambda encoder: None)
    monkeypatch.setattr(distillation, "check_lengths", lambda *_: None)
    for module in (tables, method):
        monkeypatch.setattr(module, "depth", lambda tower: 12)
    monkeypatch.setattr("leadkit.experiments.pipeline.hidden_size", lambda encoder: 768)
    monkeypatch.setattr("leadkit.experiments.paper_methods.identity", lambda tokenizer: "one")
    monkeypatch.setattr("leadkit.experiments.paper_methods.load_tokenizer", lambda encoder: None)


@pytest.mark.parametrize("name", PAPERS)
def test_schedules_are_those_of_the_released_scripts(name, offline):
    one = config.scale(name)
    rates = {
        teacher: [
            (stage.schedule.steps, stage.schedule.learning_rate, stage.schedule.accumulate)
            for stage in (chain.teacher, chain.student, chain.distil("RD"), chain.distil("LEAD"))
        ]
        for teacher, chain in ((each, Pipeline(one, 0, each)) for each in TEACHERS)
    }
    student = (20_000, 2e-5, 1)
    assert rates["DE"] == [(20_000, 2e-5, 1), student, (50_000, 5e-5, 1), (50_000, 5e-5, 1)]
    assert rates["CB"] == [(20_000, 2e-5, 1), student, (50_000, 2e-5, 1), (50_000, 2e-5, 1)]
    assert rates["CE"] == [(20_000, 1e-5, 10), student, (100_000, 5e-5, 10), (100_000, 5e-5, 10)]
    larger = Pipeline(one, 0, "CB", larger=True)
    assert larger.teacher.schedule.learning_rate == 1e-5
    assert larger.distil("LEAD").schedule.learning_rate == 2e-5
    # the control has one schedule, whatever teacher it is compared with
    assert {Pipeline(one, 0, each).distil("student").schedule for each in TEACHERS} == {one.distil}
    every = [one.warm_up, one.teacher, one.student, one.distil, *one.own.values()]
    assert {(each.weight_decay, each.clip) for each in every} == {(0.0, 2.0)}


@pytest.mark.parametrize("name", PAPERS)
def test_every_table_is_a_recipe(name, offline):
    """No row of a table is missing; Table 8 is of the larger pair, by names on the hub."""
    one = config.scale(name)
    every = tables.experiments(one)
    wanted = tables.TABLES | tables.rows_at(one)
    assert {row for rows in wanted.values() for row in rows} <= every.keys()
    starts = {row: every[row].retriever for row in wanted["8"]}
    assert {row: stage.student.tower.encoder for row, stage in starts.items()} == {
        "masked LM start": "nghuyong/ernie-2.0-base-en",
        "bottlenecked start": "lx865712528/master-base-pretrained-msmarco",
        "larger LEAD": "Luyu/co-condenser-marco",
    }
    assert len({stage.teacher.tower for stage in starts.values()}) == 1
    assert [every[row].retriever.method.k for row in wanted["4"]] == [1, 2, 3, 4, 5, 6]


def test_prod_has_its_published_settings(offline):
    chain = prod.PROD(config.scale("paper"))
    base = "nghuyong/ernie-2.0-base-en"
    first, second, third, data_stage = chain.stages
    assert [stage.teacher.tower.architecture for stage in chain.stages] == ["DE", "CE", "CE", "CE"]
    assert first.student.tower.encoder == f"layers:1,2,3,4,5,6:{base}"
    assert [first.teacher.tower.encoder, second.teacher.tower.encoder] == [base, base]
    assert third.teacher.tower.encoder == "nghuyong/ernie-2.0-large-en"
    shapes = [(stage.data.batch, stage.data.passages) for stage in chain.stages]
    assert shapes == [(128, 2), (64, 16), (64, 16), (64, 16)]
    assert {(each.schedule.steps, each.schedule.learning_rate) for each in chain.stages[:3]} == {
        (40_000, 5e-5)
    }
    assert data_stage.schedule.learning_rate == pytest.approx(1e-5)
    for stage, rate in ((second, 1e-5), (third, 5e-6)):
        trained = stage.teacher
        assert (trained.schedule.steps, trained.schedule.learning_rate) == (6000, rate)
        assert (trained.data.batch, trained.schedule.accumulate) == (32, 8)
        assert trained.data.pair_tokens == 160
    small = prod.PROD(config.scale("smoke"))
    assert small.stages[1].teacher.data == small.stages[1].data


# --- long documents


@pytest.fixture
def documents(monkeypatch, tmp_path):
    """A made-up collection of documents of 300 to 700 words, and encoders of 512 positions."""
    isolate(monkeypatch, tmp_path)
    draw = random.Random(0)
    texts = {f"d{i}": " ".join(draw.choices(WORDS, k=draw.randint(300, 700))) for i in range(24)}
    queries, qrels = {}, {"train": {}, "dev": {}, "test": {}}
    for i in range(16):
        split = "train" if i < 8 else "dev" if i < 12 else "test"
        queries[f"q{i}"] = " ".join(texts[f"d{i}"].split()[:4])
        qrels[split][f"q{i}"] = {f"d{i}": 1}
    sizes = {"layers": 2, "hidden": 16, "positions": 512}
    large = encoder(tmp_path / "large", "bert", **sizes | {"layers": 3})
    small = encoder(tmp_path / "small", "bert", **sizes)
    paper = config.scale("paper-document")
    data = replace(
        paper.data,
        collection=write_beir(tmp_path / "documents", texts, queries, qrels),
        batch=2,
        passages=2,
        negatives=4,
    )
    steps = {name: Schedule(1, 1e-3) for name in ("warm_up", "teacher", "student", "distil")}
    return replace(
        paper,
        data=data,
        teacher_encoder=large,
        student_encoder=small,
        larger_encoder=large,
        lead=Lead(k=2),
        rerank=4,
        depth=20,
        bf16=False,
        own={"distil CE": Schedule(1, 1e-3, accumulate=2)},
        starts={},
        prod_published=False,
        **steps,
    )


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_pair_is_cut_at_the_end_of_its_document(kind, documents, tmp_path):
    """The query stays whole, [SEP] ends the pair, and no pair is longer than the encoder takes."""
    data = documents.data
    tower = Tower("CE", encoder(tmp_path / kind, kind, positions=512 + 2 * (kind == "roberta")))
    queries, passages = queries_of(tower, data, "train"), passages_of(tower, data)
    alone = passages_of(replace(tower, architecture="DE"), data)
    fit = passage_in_pair(tower, 32, 512, 512)
    assert fit == {"bert": 481, "roberta": 480}[kind]
    assert max(passages.lengths) == fit and max(alone.lengths) == 512
    rows = np.arange(8)
    pairs = pair(queries, passages, rows, rows)
    query = queries.row(0)
    assert pairs.ids[0, : len(query)].tolist() == query.tolist()
    assert pairs.mask.sum(1).max() <= 512
    for i in rows:
        kept = len(passages.row(i)) - 1
        assert passages.row(i)[:kept].tolist() == alone.row(i)[:kept].tolist()
        assert passages.row(i)[-1] == alone.row(i)[-1]  # [SEP]
    check_lengths(tower, 32, 512, True, 512)
    with pytest.raises(ValueError, match="make pairs of 54[34] tokens: the position table"):
        check_lengths(tower, 32, 512, True)
    with pytest.raises(ValueError, match="data.pair_tokens is 33: with data.query_tokens 32 no"):
        passage_in_pair(tower, 32, 512, 33)


@pytest.mark.slow
def test_documents_run_through_the_main_table(documents, tmp_path):
    """Every architecture teaches by every method; CB and CE re-rank; the sweep plans Table 2."""
    for teacher in TEACHERS:
        rows = Pipeline(documents, 0, teacher).rows("test")
        for row in ("teacher", "FD", "RD", "LEAD", "teacher after LEAD"):
            measures = rows[row].record()["measures"]
            assert 0 <= measures["RR@10"] <= 1, (teacher, row)
        assert all(np.isfinite(step["total"]) for step in rows["FD"].retriever.log())
    planned = sweep.plan(("2",), documents, 1)
    assert list(planned[0]) == ["CB LEAD", "larger LEAD"]
