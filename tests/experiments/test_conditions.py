"""The map of conditions: each point changes what its name says, and nothing else."""

from dataclasses import replace
from functools import cache

import pytest
from toys import scale

from leadkit.config import Lead
from leadkit.experiments import conditions, sweep, tables
from leadkit.experiments.interpolation import TakenBack
from leadkit.experiments.pipeline import Pipeline
from leadkit.models.tower import depth

SIZES = {
    "teacher_encoder": "bert-12x128",
    "student_encoder": "bert-6x128",
    "larger_encoder": "bert-12x128",
    "lead": Lead(k=2),
}


@cache
def made(name):
    return conditions.experiments(scale(name, **SIZES), 1)


@pytest.fixture
def rows(common):
    return made(common)


def test_every_row_is_there_and_equal_trainings_are_run_once(rows):
    assert {*rows} == {name for table in conditions.TABLES.values() for name in table}
    for steps in (150, 600, 2400):
        for alone in ("student, as long", "student + smooth label"):
            names = [n for n in conditions.TABLES[f"map {steps}"] if n.startswith(alone)]
            assert len(names) == 9 and len({rows[n].key for n in names}) == 1
    names = [name for name in rows if name.startswith("frozen LEAD")]
    assert len({rows[name].key for name in names}) == len(names) == 27 + 8
    # RD does not read tau_l.
    assert len({rows[n].key for n in rows if n.startswith("RD") and "tau_l" in n}) == 9


@pytest.mark.parametrize("row", conditions.TRAINED)
def test_a_point_differs_from_the_scale_in_what_its_name_says(row, rows, common):
    method, lead = conditions.TRAINED[row]
    for kind in ("DE", "CB"):
        usual = Pipeline(scale(common, **SIZES), 1, kind).distil(method, **lead)
        settings = replace(usual.method, tau_l=10.0) if "LEAD" in row else usual.method
        steps = replace(usual.schedule, steps=600)
        got = rows[f"{row}, 600 steps, {kind} teacher, tau_l 10"].retriever
        assert got == replace(usual, schedule=steps, method=settings)
    single = rows[f"{row}, one passage per query"].retriever
    assert single == replace(usual, data=replace(usual.data, passages=1))
    gentle = rows[f"{row}, learning rate x 0.5"].retriever
    rate = 0.5 * usual.schedule.learning_rate
    assert gentle == replace(usual, schedule=replace(usual.schedule, learning_rate=rate))
    assert rows[f"{row}, {conditions.BACK}"].retriever == TakenBack(usual.data, usual, 0.25)
    lower = rows[f"{row}, lower layers of the teacher"].retriever
    assert lower.student.tower.encoder == "layers:1,2,3,4,5,6:bert-12x128"
    assert lower.teacher == usual.teacher


def test_the_shallow_teacher_is_as_deep_as_its_student_and_otherwise_the_usual_one(rows, common):
    shallow, usual = (
        rows[f"RD, 600 steps, {teacher}, tau_l 1"].retriever
        for teacher in (conditions.SHALLOW, "CB teacher")
    )
    tower = replace(usual.teacher.tower, encoder="layers:1,2,3,4,5,6:bert-12x128")
    assert shallow == replace(usual, teacher=replace(usual.teacher, tower=tower))
    assert depth(shallow.teacher.tower) == depth(shallow.student.tower) == 6


def test_the_teacher_re_ranks_the_list_of_the_scale(rows, common):
    chain = Pipeline(scale(common, **SIZES), 1, "CB")
    first = chain.evaluate(chain.first_stage, "dev")
    for teacher in (conditions.SHALLOW, "CB teacher"):
        evaluation = rows[f"teacher, 600 steps, {teacher}, tau_l 1"]
        assert evaluation.first == first
        assert evaluation.retriever.negatives == chain.negatives
    assert rows["teacher, 600 steps, DE teacher, tau_l 1"] == first


def test_the_map_is_measured_on_dev_and_no_part_of_all(name, monkeypatch):
    monkeypatch.setattr(sweep, "SOURCES", (tables,))
    chosen = scale(name, **SIZES)
    with pytest.raises(ValueError, match="split is 'test': table 'map 150' is measured on dev"):
        sweep.plan(("map 150",), chosen, 1)
    (planned,) = sweep.plan(("map 150",), chosen, 1, "dev").values()
    assert {*planned} == {*conditions.TABLES["map 150"]}
    (every,) = sweep.plan(("all",), chosen, 1, "dev").values()
    assert not {*every} & {name for table in conditions.TABLES.values() for name in table}
