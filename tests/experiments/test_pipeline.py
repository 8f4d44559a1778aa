"""The chains of stages and the main table, end to end with untrained encoders."""

import re
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from toys import isolate, scale, toy

from leadkit import config, paths
from leadkit.config import Schedule
from leadkit.experiments import store
from leadkit.experiments.distillation import Distil
from leadkit.experiments.methods import METHODS
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import ROWS, TEACHERS, experiment
from leadkit.experiments.tables import BASELINES, STARTS, TABLES, experiments
from leadkit.models.packaged import packaged_folder
from leadkit.results import records
from leadkit.results.tables import main_markdown, main_rows, run_main_table, summarise


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return scale(toy(tmp_path / "toy"))


# --- the main table


@pytest.mark.slow
def test_main_table_has_its_rows_and_runs_nothing_twice(tiny, tmp_path, monkeypatch):
    pipelines = [Pipeline(tiny, seed) for seed in range(2)]
    table = run_main_table(pipelines)
    assert tuple(table.index) == ROWS
    assert list(table.columns) == [
        "MRR@10",
        "sd",
        "MAP@1k",
        "R@100",
        "R@1k",
        "p vs RD",
        "paper MRR@10",
    ]
    assert table["MRR@10"].between(0, 100).all() and table["p vs RD"].drop("RD").between(0, 1).all()
    assert np.isnan(table.loc["RD", "p vs RD"])
    assert table.loc[["BM25", "12DE (mines)"], "sd"].eq(0).all()  # shared by the seeds
    by_hand = [pipelines[s].rows()["LEAD"].values().mean() * 100 for s in (0, 1)]
    assert table.loc["LEAD", "MRR@10"] == pytest.approx(np.mean(by_hand), abs=1e-3)
    assert table.loc["LEAD", "sd"] == pytest.approx(np.std(by_hand, ddof=1), abs=1e-3)
    paper = {
        "BM25": 18.7,
        "teacher": 39.46,
        "student": 32.62,
        "FD": 33.92,
        "RD": 36.02,
        "LEAD": 37.8,
        "teacher after LEAD": 40.49,
    }
    assert table["paper MRR@10"].dropna().to_dict() == paper
    # 1 miner, 1 mine, 2 seeds of (3 warm-ups, 4 distillations); evaluations: BM25 and the miner
    # once, 8 others per seed, the first stage's among them
    made = sorted(path.name.split("-")[0] for path in paths.RUNS.iterdir() if path.is_dir())
    assert {kind: made.count(kind) for kind in set(made)} == {
        "warm": 7,
        "mine": 1,
        "distil": 8,
        "evaluate": 18,
        "teacher": 2,  # after LEAD
    }
    monkeypatch.setattr(
        store.Stage, "_run", lambda self, *how: pytest.fail(f"{self.kind} was run again")
    )
    again = run_main_table([Pipeline(tiny, seed) for seed in range(2)])
    assert again.equals(table)
    # The records on disk give the same table.
    evaluations = {
        each.seed: {experiment(row, "CB"): stage for row, stage in each.rows().items()}
        for each in pipelines
    }
    records.save(evaluations, tmp_path / "records")
    kept = records.read(tmp_path / "records")
    assert sum(map(len, kept.values())) == 2 * len(ROWS)
    assert summarise(main_rows(kept)).equals(table)
    # What a row cost: every retriever it comes from, once, the miner included; a teacher, frozen or
    # joint, answers each step.
    for row, trained, passes in (
        ("BM25", (), 0),
        ("student", ("miner", "student"), 0),
        ("student, as long", ("miner", "student"), 0),
        ("LEAD", ("miner", "student", "teacher"), tiny.distil.steps),
        ("teacher after LEAD", ("miner", "student", "teacher"), tiny.distil.steps),
    ):
        evaluation = pipelines[1].rows()[row]
        seconds = sum(getattr(pipelines[1], name).seconds() for name in trained)
        trained_last = getattr(evaluation.retriever, "distillation", evaluation.retriever)
        if trained_last and trained_last.kind == "distil":
            seconds += trained_last.seconds()
        seconds += evaluation.retriever.seconds() if row == "teacher after LEAD" else 0
        assert evaluation.cost() == {"seconds": pytest.approx(seconds), "teacher_passes": passes}
        assert kept[experiment(row, "CB")][1]["cost"] == evaluation.cost()
    lines = main_markdown(table).splitlines()
    assert len(lines) == 2 + len(ROWS) and [
        line.split("|")[1].strip() for line in lines[2:]
    ] == list(ROWS)
    assert f"{table.loc['LEAD', 'MRR@10']:.2f}" in lines[2 + ROWS.index("LEAD")]


def test_one_seed_has_no_deviation():
    record = {
        "collection": "a",
        "fingerprint": "1",
        "split": "test",
        "per_query": {"RR@10": [0.5, 0.5]},
        "measures": dict.fromkeys(("RR@10", "AP@1000", "R@100", "R@1000"), 0.5),
    }
    table = summarise({"RD": [record], "BM25": [record]})
    assert table["sd"].isna().all() and table.loc["BM25", "p vs RD"] == 1
    assert table.loc["BM25", "MRR@10"] == 50


def test_records_of_different_seeds_are_averaged_query_by_query():
    def record(*values):
        return {
            "collection": "a",
            "fingerprint": "1",
            "split": "test",
            "per_query": {"RR@10": list(values)},
            "measures": dict.fromkeys(
                ("RR@10", "AP@1000", "R@100", "R@1000"), float(np.mean(values))
            ),
        }

    rows = {
        "RD": [record(0.2, 0.4, 0.1), record(0.4, 0.0, 0.3)],
        "LEAD": [record(0.5, 0.6, 0.2), record(0.9, 0.2, 0.4)],
    }
    table = summarise(rows)
    difference = np.array([0.7, 0.4, 0.3]) - np.array([0.3, 0.2, 0.2])
    from scipy.stats import ttest_1samp

    assert table.loc["LEAD", "p vs RD"] == pytest.approx(ttest_1samp(difference, 0).pvalue)
    assert table.loc["LEAD", "MRR@10"] == pytest.approx(100 * 1.4 / 3) and table.loc[
        "LEAD", "sd"
    ] == pytest.approx(100 * np.std([1.3 / 3, 0.5], ddof=1))


def test_experiments_are_the_rows_of_the_tables(tiny):
    tiny = replace(
        tiny,
        student_encoder="random:6x32",
        teacher_encoder="random:12x32",
        larger_encoder="random:24x32",
        lead=config.Lead(),
    )
    every = experiments(tiny, 1)
    assert {name for names in TABLES.values() for name in names} == set(every) | set(STARTS)
    keys = [stage.key for stage in every.values()]
    assert (
        len(set(keys)) == len(keys) == 3 * 5 + 4 + 5 + 3 + 2 + 3 + 1 + len(BASELINES)
    )  # five rows per teacher, four without, Tables 4, 5, 6, 7, 1, the baselines
    for teacher in TEACHERS:
        assert every[f"{teacher} LEAD"] == Pipeline(tiny, 1, teacher).rows()["LEAD"]
    base = every["CB LEAD"].retriever
    for name, field, value in (
        ("K=6", "k", 6),
        ("Skip", "strategy", "skip"),
        ("without joint training", "joint", False),
        ("without re-weighting", "reweight", False),
    ):
        assert every[name].retriever == replace(base, method=replace(base.method, **{field: value}))
    linear = every["linear RD"].retriever
    assert (
        linear.method.name == "RD"
        and linear.tower.linear == linear.teacher.tower.linear == 32
        and base.tower.linear == 0
    )
    larger = every["larger LEAD"].retriever
    assert (larger.teacher.tower.encoder, larger.student.tower.encoder) == (
        "random:24x32",
        "random:12x32",
    )
    assert (
        larger.negatives == base.negatives and larger.method == base.method
    )  # the same miner, the same settings
    shallow = experiments(replace(tiny, student_encoder="random:3x32", lead=config.Lead(k=2)))
    assert {name for name in shallow if name.startswith("K=")} == {"K=1", "K=2", "K=3"}


def test_starts_of_table_8_are_there_where_their_encoders_are(tiny, tmp_path, monkeypatch):
    for name in ("bert-6x128", "bert-6x128-masked-lm"):
        shutil.copytree(paths.MODELS / "bert-6x128", tmp_path / "models" / name)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    every = experiments(
        replace(
            tiny,
            student_encoder="bert-6x128",
            teacher_encoder="random:12x32",
            larger_encoder="random:24x32",
        )
    )
    assert set(STARTS) & set(every) == {"masked LM start"}
    base, start = every["CB LEAD"].retriever, every["masked LM start"].retriever
    tower = replace(base.student.tower, encoder="bert-6x128-masked-lm")
    assert start == replace(base, student=replace(base.student, tower=tower))  # and nothing else


# --- the first stage


@pytest.mark.parametrize("changes", [{}, {"linear": True}, {"larger": True}])
def test_who_cannot_search_re_ranks_the_de_teachers_search(changes, tiny):
    """Section 4.2.1. The list is that of the teacher of the mined negatives, not of the miner."""
    dense = Pipeline(tiny, 1, "DE", **changes)
    expected = dense.rows()["teacher"]
    assert expected.retriever.negatives == dense.negatives
    for teacher in ("CB", "CE"):
        chain = Pipeline(tiny, 1, teacher, **changes)
        rows = chain.rows()
        for row in ("teacher", "teacher after LEAD"):
            assert rows[row].first.key == expected.key and rows[row].rerank == tiny.rerank
        tower = replace(chain.teacher.tower, architecture="DE", scale=dense.teacher.tower.scale)
        assert rows["teacher"].first.retriever.tower == tower
        searched = [row for row, each in rows.items() if each.first is None]
        assert searched == [row for row in ROWS if not row.startswith("teacher")]
    assert all(each.first is None for each in dense.rows().values())


# --- the chain


def test_every_method_starts_from_the_same_two_checkpoints(tiny):
    for teacher in TEACHERS:
        for linear in (False, True):
            chain = Pipeline(tiny, 1, teacher, linear)
            starts = {
                (d.student.key, d.teacher.key, d.negatives.key, d.schedule, d.seed)
                for d in (chain.distil(method) for method in ("FD", "RD", "LEAD"))
            }
            assert chain.distil("student") == replace(
                chain.distil("RD"), method=METHODS["student"](), teacher=None
            )
            assert starts == {
                (chain.student.key, chain.teacher.key, chain.negatives.key, tiny.distil, 1)
            }
            assert (chain.student.tower.architecture, chain.teacher.tower.architecture) == (
                "DE",
                teacher,
            )
            assert (
                chain.student.tower.linear == chain.teacher.tower.linear == 32 * linear
                and chain.miner.tower.linear == 0
            )


def test_an_appended_layer_is_as_wide_as_its_encoder(tiny):
    """768 -> 768 in the paper (section 4.6.1); here teacher and student differ."""
    chain = Pipeline(replace(tiny, student_encoder="random:2x16"), linear=True)
    assert (chain.student.tower.linear, chain.teacher.tower.linear) == (16, 32)


def test_seeds_share_the_miner_and_nothing_after_it(tiny):
    a, b = Pipeline(tiny, 0), Pipeline(tiny, 1)
    assert a.miner.key == b.miner.key and a.negatives.key == b.negatives.key
    for one, other in zip(
        (a.student, a.teacher, a.distil("LEAD")),
        (b.student, b.teacher, b.distil("LEAD")),
        strict=True,
    ):
        assert one.key != other.key


def test_keywords_of_distil_change_lead_and_nothing_else(tiny):
    chain = Pipeline(tiny)
    base, other = chain.distil("LEAD"), chain.distil("LEAD", k=1, joint=False)
    assert (other.method.k, other.method.joint) == (1, False)
    assert [f.name for f in fields(Distil) if getattr(base, f.name) != getattr(other, f.name)] == [
        "method"
    ]


def test_batches_to_look_at_are_those_of_the_distillation(tiny):
    chain = Pipeline(tiny)
    a, b = chain.batches(chain.student.tower)(0), chain.batches(chain.teacher.tower)(0)
    assert a.queries.ids.tolist() == b.queries.ids.tolist() and len(a.positive) == 4


def test_unknown_teacher_and_scale():
    with pytest.raises(ValueError, match="teacher 'XE' is unknown: use one of DE, CB, CE"):
        Pipeline(config.scale("smoke"), teacher="XE")
    with pytest.raises(
        ValueError,
        match="scale 'tiny' is unknown: use one of smoke, classroom, evening, gpu, paper",
    ):
        config.scale("tiny")
    with pytest.raises(TypeError, match="nosuchfield"):
        config.scale("smoke", nosuchfield=1)


@pytest.mark.parametrize("name", [name for name in config.SCALES if not name.startswith("paper")])
def test_scales_are_possible(name):
    """Every chain of every scale can be built, and its evaluation is deep enough for R@1000."""
    if name == "evening" and packaged_folder(config.MINILM) is None:
        pytest.skip("the package of its encoder is not installed: `make evening` does it")
    one = config.scale(name)
    assert one.name == name and one.depth >= 1000
    for teacher in TEACHERS:
        Pipeline(one, teacher=teacher).rows()
    assert (
        config.scale(name, distil=Schedule(7)).distil.steps == 7
        and config.SCALES[name].distil.steps != 7
    )
    assert re.fullmatch(r"python-docs(:smoke)?", one.data.collection)


def test_paper_scale_is_the_papers():
    """Section 4.2 and the released scripts.

    Its encoders and passages are downloaded, so nothing more can be built here.
    """
    one = config.scale("paper")
    assert [s.steps for s in (one.warm_up, one.teacher, one.student, one.distil)] == [
        20_000,
        20_000,
        20_000,
        50_000,
    ]
    assert {
        (s.learning_rate, s.clip) for s in (one.warm_up, one.teacher, one.student, one.distil)
    } == {(2e-5, 2.0)}
    assert (one.data.query_tokens, one.data.negatives, one.rerank, one.depth, one.dropout) == (
        32,
        100,
        1000,
        1000,
        0.1,
    )
    assert not one.scaled
