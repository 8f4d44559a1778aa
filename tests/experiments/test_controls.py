"""The controls: each differs from the row that it is held against in one thing."""

from dataclasses import replace
from itertools import product

import pytest
from toys import scale

from leadkit.config import Lead
from leadkit.experiments import controls, sweep, tables
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.ready import Ready
from leadkit.experiments.rescaled import Rescaled
from leadkit.files import write_json

SIZES = {
    "teacher_encoder": "random:12x32",
    "student_encoder": "random:6x32",
    "larger_encoder": "random:13x32",
    "lead": Lead(k=5),
}
TRAININGS = ("student, as long", "CB RD", "CB LEAD", "CB frozen LEAD")
PLAIN = dict(zip(TRAININGS, (*TRAININGS[:3], "without joint training"), strict=True))
CHAIN = ("CB teacher", "student", *TRAININGS)
WIDE = {**PLAIN, **{name: name for name in ("student, own passages", "CE RD")}}
SOFT = ("student + smooth label", "CB RD + soft response", "CB RD + smooth label")
RESCALED = (*TRAININGS, *SOFT)
TIMES = {", scores / 2": 0.5, ", scores x 2": 2, ", scores x 4": 4}
NAMES = {
    *(f"{teacher} teacher, as long" for teacher in ("DE", "CB", "CE")),
    "DE frozen LEAD",
    "CE frozen LEAD",
    "CE RD on own passages",
    *(f"{name}, 16 x 8" for name in WIDE),
    *(name + regime for name in CHAIN for regime in (", raw scores", ", released")),
    "CB RD, tau_d = 2",
    *(name + times for name in RESCALED for times in TIMES),
    "encoder as it came",
}


@pytest.fixture
def rows(name):
    return controls.experiments(scale(name, **SIZES), 1)


def test_names_and_keys(rows, name):
    assert set(rows) == NAMES and set(controls.TABLES["controls"]) > NAMES
    every = tables.experiments(scale(name, **SIZES), 1) | rows
    assert len({each.key for each in every.values()}) == len(every)
    (planned,) = sweep.plan(("controls",), scale(name, **SIZES), 1, first=1).values()
    assert planned == {name: every[name] for name in controls.TABLES["controls"]}


@pytest.mark.parametrize("teacher", ["DE", "CB", "CE"])
def test_the_teacher_that_trains_alone_sees_the_batches_of_lead(teacher, rows, name):
    chain = Pipeline(scale(name, **SIZES), 1, teacher)
    after, alone = chain.rows()["teacher after LEAD"], rows[f"{teacher} teacher, as long"]
    assert (alone.first, alone.rerank) == (after.first, after.rerank)
    lead, control = chain.distil("LEAD"), alone.retriever
    assert (control.student, control.schedule, control.seed) == (chain.teacher, lead.schedule, 1)
    assert (control.method.name, control.teacher) == ("student", None)
    for step in range(2):
        ours, theirs = (stage.batches(control.tower)(step) for stage in (control, lead))
        assert ours.own == theirs.own == (teacher == "CE")
        part = "pairs" if teacher == "CE" else "passages"
        assert getattr(ours, part).ids.tolist() == getattr(theirs, part).ids.tolist()
    for row in control.log():
        assert row["total"] == row["student"] > 0 == row["response"] == row["layer"]
    assert control.model().architecture == teacher


def test_frozen_lead_differs_in_the_teacher_alone(rows, name):
    for teacher in ("DE", "CE"):
        lead = Pipeline(scale(name, **SIZES), 1, teacher).rows()["LEAD"].retriever
        frozen = replace(lead, method=replace(lead.method, joint=False))
        assert rows[f"{teacher} frozen LEAD"].retriever == frozen


def test_softer_targets_change_the_temperature_alone(rows, name):
    rd = tables.experiments(scale(name, **SIZES), 1)["CB RD"]
    soft = rows["CB RD, tau_d = 2"]
    assert rd.retriever.method.tau_d == 1 and soft.retriever.method.tau_d == 2
    assert replace(soft, retriever=replace(soft.retriever, method=rd.retriever.method)) == rd


def test_rescaled_scores_change_the_student_of_the_distillation_alone(rows, name):
    made = scale(name, **SIZES)
    plain = tables.experiments(made, 1)
    student = Pipeline(made, 1).student
    for row, times in product(RESCALED, TIMES):
        usual, changed = plain[PLAIN.get(row, row)], rows[row + times]
        assert changed.retriever.student == Rescaled(made.data, student, TIMES[times])
        assert replace(changed, retriever=replace(changed.retriever, student=student)) == usual


def test_the_encoder_as_it_came_is_whole_and_untrained(name):
    made = scale(name, **SIZES | {"student_encoder": "layers:2,4:bert-6x128", "lead": Lead(k=2)})
    chain = Pipeline(made, 1)
    encoder = Ready(made.data, replace(chain.student.tower, encoder="bert-6x128"))
    row = controls.experiments(made, 1)["encoder as it came"]
    assert row == chain.evaluate(encoder, "test")


def test_wide_batches_change_the_distillation_alone(rows, name):
    made = scale(name, **SIZES)
    plain = tables.experiments(made, 1)
    for short, long in WIDE.items():
        wide = rows[f"{short}, 16 x 8"]
        assert (wide.retriever.data.batch, wide.retriever.data.passages) == (16, 8)
        assert replace(wide, retriever=replace(wide.retriever, data=made.data)) == plain[long]


def test_raw_scores_are_the_papers_regime_on_the_same_negatives_and_list(rows, name):
    made = scale(name, **SIZES)
    plain = Pipeline(made, 1)
    teacher, student = (rows[f"{who}, raw scores"] for who in ("CB teacher", "student"))
    assert (teacher.first, teacher.rerank) == (plain.rows()["teacher"].first, made.rerank)
    for raw, ours in ((teacher, plain.teacher), (student, plain.student)):
        assert (raw.retriever.tower.scale, raw.retriever.tower.dropout) == (1.0, 0.1)
        tower = replace(raw.retriever.tower, scale=ours.tower.scale, dropout=ours.tower.dropout)
        assert replace(raw.retriever, tower=tower) == ours != raw.retriever
    for short in TRAININGS:
        stage = rows[f"{short}, raw scores"].retriever
        assert (stage.student, stage.negatives) == (student.retriever, plain.negatives)
        assert stage.teacher == (None if short == "student, as long" else teacher.retriever)
    assert rows["CB LEAD, raw scores"].retriever.method.tau_l == 10
    low = controls.experiments(replace(made, lead=replace(made.lead, tau_l=0.5)), 1)
    assert low["CB LEAD, raw scores"].retriever.method.tau_l == 10


def test_the_released_variant(rows):
    stage = rows["CB LEAD, released"].retriever
    method = stage.method
    assert (method.name, method.variant) == ("LEAD", "released")
    assert (method.tau_d, method.tau_l) == (1, 10)  # of the scripts
    assert stage.student.tower.released and stage.teacher.tower.released
    for short in TRAININGS:
        other = rows[f"{short}, released"].retriever
        assert (other.student, other.negatives) == (stage.student, stage.negatives)
        assert other.student == rows["student, released"].retriever
        assert other.teacher in (None, rows["CB teacher, released"].retriever)


def test_estimates_tell_controls_apart(rows, name):
    """As long as another seed of the same row, not as its plain row or the student's."""
    other = controls.experiments(scale(name, **SIZES), 2)
    names = ("student, as long, 16 x 8", "CB teacher, as long", "CE teacher, as long")
    for i, row in enumerate(names, start=1):
        stage = rows[row].retriever
        seal = {"stage": stage.describe(), "seconds": 10.0 * i, "files": {}}
        write_json(stage.folder / "stage.json", seal)
    estimates = sweep.Estimates()
    for i, row in enumerate(names, start=1):
        assert estimates(other[row].retriever) == 10.0 * i
