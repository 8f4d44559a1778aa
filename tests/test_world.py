"""The made worlds: what a teacher says there, what students learn, and the committed record."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import tensor

from leadkit import losses, paths
from leadkit.lessons import exercises, figures, widgets, world
from leadkit.lessons.widgets import toolkit
from leadkit.lessons.widgets import world as sliders
from leadkit.lessons.world import assistants, made, record, students
from leadkit.result_commands import world as command
from leadkit.results import tried, worlds

COMMITTED = paths.RESULTS / "world" / "students.json"
ROUNDING = 1.0  # points of MRR@10 between two kinds of processor, for one student
SEEDS = range(3)


@pytest.fixture
def learnt():
    return worlds.read()


# --- what is made


def texts(topics, distracting):
    """Texts whose first feature of each topic, and first distracting feature, are given."""
    topic = torch.zeros(len(topics), made.GROUPS, made.SIZE)
    topic[..., 0] = tensor(topics)
    others = torch.zeros(len(topics), made.DISTRACTING)
    others[:, 0] = tensor(distracting)
    return made.Texts(topic, others, torch.zeros(len(topics), made.FEATURES))


def test_a_layer_says_what_was_written_down():
    queries = texts([[1.0, 2.0, 0, 0], [0, 0, 4.0, 0]], [1.0, 0])
    passages = texts([[4.0, 8.0, 0, 0], [0, 0, 4.0, 1.0]], [8**0.5, 1.0])
    first = made.layer_scores(world.Layer((1,)), queries, passages)
    torch.testing.assert_close(first, tensor([[1.0, 0], [0, 0]]))
    everything = made.layer_scores(world.Layer((1, 2, 3), 2.0, 3.0), queries, passages)
    torch.testing.assert_close(everything, tensor([[5.0 + 2 + 3, 2 / 8**0.5], [0, 4.0 + 3]]))


def test_worlds_share_their_texts_and_seeds_do_not():
    drowned, twin = (world.make(world.WORLDS[name], 0) for name in ("drowned", "twin"))
    assert torch.equal(drowned.test_queries.seen, twin.test_queries.seen)
    assert torch.equal(drowned.teacher[:5], twin.teacher[:5])
    assert not torch.equal(drowned.teacher[5], twin.teacher[5])
    other = world.make(world.WORLDS["twin"], 1)
    assert not torch.equal(other.queries.seen, twin.queries.seen)


def test_a_query_is_about_its_passage():
    data = world.make(world.WORLDS["twin"], 0)
    assert world.reciprocal_ranks(data.teacher[0]) > 0.8
    topics = data.test_queries.topic, data.test_passages.topic[: made.TEST_QUERIES]
    assert (topics[0] - topics[1]).std().item() == pytest.approx(made.BLUR, rel=0.05)


def test_mrr_is_a_mean_over_ranks():
    table = torch.randn(20, 30)
    ranks = [1 + sorted(row, reverse=True).index(row[i]) for i, row in enumerate(table.tolist())]
    want = np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
    assert world.reciprocal_ranks(table) == pytest.approx(want)


@pytest.mark.parametrize(
    ("made_of", "says"),
    [({"layers": (world.Layer((5,)),)}, "layer 1 knows"), ({"queries": 1}, "queries is 1")],
)
def test_a_world_that_cannot_be_is_refused(made_of, says):
    with pytest.raises(ValueError, match=says):
        world.World(**({"layers": (world.KNOWS_ALL,)} | made_of))


# --- how students are taught


def test_the_losses_are_those_of_the_package():
    student, teacher = torch.randn(4, 5, 5), torch.randn(6, 5, 5)
    positive = torch.arange(5)

    def taught(method):
        generator = torch.Generator().manual_seed(1)
        return world.METHODS[method](student, teacher, positive, generator)

    s, t = student[[1, 2, 3]], teacher[[3, 4, 5]]
    final = student[-1], teacher[-1], positive
    want = losses.lead_loss(s, t, *final, joint=False)
    torch.testing.assert_close(taught("LEAD, Last"), want.total)
    torch.testing.assert_close(taught("RD"), losses.response_loss(*final).total)
    torch.testing.assert_close(taught("control"), losses.student_loss(final[0], positive).total)
    assert len({taught(method).item() for method in world.METHODS}) == len(world.METHODS)


def test_only_one_method_leaves_the_order(monkeypatch):
    """Layers whose scores tell their number: what is compared in each method?"""
    pairs = []

    def spy(student, teacher, *rest, **options):
        pairs.append((student[:, 0, 0].tolist(), teacher[:, 0, 0].tolist()))
        return losses.student_loss(rest[0], rest[2])

    monkeypatch.setattr(students.losses, "lead_loss", spy)
    numbered = [torch.arange(1.0, n + 1)[:, None, None].expand(n, 2, 2) for n in (4, 6)]
    for name in ("LEAD", "LEAD, any order"):
        pairs.clear()
        generator = torch.Generator().manual_seed(0)
        for _ in range(40):
            world.METHODS[name](*numbered, torch.arange(2), generator)
        assert all(student == sorted(student) for student, _ in pairs)
        assert all(t == sorted(t) for _, t in pairs) == (name == "LEAD")


def test_a_student_of_one_block_is_taught():
    data = world.make(world.World((world.KNOWS_ALL,), queries=8), 0)
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        student = world.train(data, world.METHODS["LEAD"], 0, blocks=1)
        assert torch.equal(before, torch.get_rng_state())
    assert student.scores(data.queries, data.passages).shape == (1, 8, 8)


# --- the record


def test_the_record_is_of_these_worlds_and_settings():
    committed = json.loads(COMMITTED.read_text())
    assert committed["settings"] == json.loads(json.dumps(record.settings()))
    assert committed["seeds"] == list(range(20))
    kept = {name: list(methods) for name, methods in committed["mrr"].items()}
    assert kept == record.needed()
    assert {len(v) for methods in committed["mrr"].values() for v in methods.values()} == {20}


def test_what_the_lesson_says_of_the_record(learnt):
    rows = worlds.table(learnt).reset_index()
    rows["pair"] = rows["difference"]
    p = rows.set_index(["world", "pair"])["p"]
    points = rows.set_index(["world", "pair"])["points"]
    for name, pair in (
        ("drowned", "LEAD - RD"),
        ("drowned", "LEAD - control"),
        ("drowned", "LEAD - labels"),
        ("moving", "LEAD - LEAD, Last"),
        ("noisy", "LEAD - LEAD, equal weights"),
        ("deepening", "LEAD - LEAD, any order"),
    ):
        assert p[name, pair] <= 0.001 and points[name, pair] > 1, (name, pair)
    twin = rows[(rows["world"] == "twin") & (rows["pair"] == "LEAD - RD")].iloc[0]
    assert twin["equivalent"] <= 0.05 and twin["p"] > 0.05


@pytest.mark.parametrize(("name", "method"), [("drowned", "LEAD"), ("twin", "RD")])
def test_students_that_are_trained_again_are_those_of_the_record(learnt, name, method):
    again = record.learn(name, method, SEEDS, tell=str)
    np.testing.assert_allclose(again, learnt[name][method][: len(SEEDS)], atol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("name", world.WORLDS)
def test_every_student_of_some_seeds_is_that_of_the_record(learnt, name):
    for method in record.needed()[name]:
        again = record.learn(name, method, SEEDS, tell=str)
        np.testing.assert_allclose(again, learnt[name][method][: len(SEEDS)], atol=ROUNDING)


def test_the_test_is_a_paired_one(learnt):
    pairs = {"LEAD": np.array([1.0, 2.0, 4.0]), "RD": np.array([0.0, 1.5, 1.0])}
    estimate = worlds.difference({"toy": pairs}, "toy", "LEAD", "RD")
    assert estimate.mean == 1.5 and estimate.df == 2
    assert estimate.error == pytest.approx(np.std([1, 0.5, 3], ddof=1) / 3**0.5)
    with pytest.raises(ValueError, match="nothing was trained as 'FD'"):
        worlds.difference({"toy": pairs}, "toy", "LEAD", "FD")


def test_the_command_trains_and_writes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(students, "STEPS", 1)
    command(seeds=2, out=tmp_path / "students.json")
    written = json.loads((tmp_path / "students.json").read_text())
    assert written["seeds"] == [0, 1] and written["settings"]["steps"] == 1
    assert "drowned" in capsys.readouterr().out
    with pytest.raises(ValueError, match="seeds is 1"):
        command(seeds=1)


# --- figures, sliders, exercise


def test_squares_are_as_large_as_the_parts():
    axes = figures.teacher_layers((world.Layer((1, 3), 1.0, 4.0), world.KNOWS_ALL))
    sizes = [dots.get_sizes()[0] for dots in axes.collections]
    assert np.divide(sizes, max(sizes)).tolist() == [1, 0, 1, 0, 0.5, 0.5, 1, 1, 1, 1, 0, 0]
    plt.close("all")


def test_intervals_are_drawn(learnt):
    table = worlds.table(learnt)
    axes = figures.world_differences(table)
    drawn = axes.containers[0].lines[0].get_xdata().astype(float)
    np.testing.assert_allclose(drawn, table["points"])
    assert axes.get_yticklabels()[0].get_text() == "drowned: LEAD - RD"
    plt.close("all")


def test_moving_a_slider_takes_the_prediction_back(monkeypatch):
    trained, roots = [], []

    def learn(chosen, blocks, seed=0):
        trained.append((chosen, blocks))
        return {"control": 40.0, "RD": 50.0, "LEAD": 60.0}

    monkeypatch.setattr(sliders, "students", learn)
    monkeypatch.setattr(toolkit, "show", lambda root, *rest: roots.append(root))
    widgets.made_world()
    box, picture = roots[0].children
    controls = {control.description: control for control in box.children}
    prediction = controls["ahead"]
    assert trained == [(world.WORLDS["drowned"], world.BLOCKS)]
    for name, value in (
        ("layers that know", (1, 6)),
        ("last layer drowned", 0.0),
        ("student blocks", 2),
        ("training queries", 64),
    ):
        prediction.value = "RD"
        before, taught = picture.value, len(trained)
        controls[name].value = value
        assert prediction.value == "?" and len(trained) == taught, name
        assert picture.value != before
    prediction.value = "LEAD"
    assert trained[-1] == (world.World(6 * (world.KNOWS_ALL,), 64), 2)


def test_a_prediction_is_judged_by_students(monkeypatch, capsys):
    gains = {"early": (70.0, 60.0), "half": (50.0, 50.5), "loud": (40.0, 60.0)}
    monkeypatch.setattr(exercises.world, "_students", gains.__getitem__)
    right = {"early": "LEAD", "half": "neither", "loud": "RD"}
    for answer, says in (
        (right, "right"),
        (dict.fromkeys(right), "no answer yet"),
        (right | {"half": "both"}, "half is 'both': say one of LEAD, RD, neither"),
        (right | {"half": "RD"}, "in the world 'half' LEAD's students reach 50 and RD's 50"),
        ({"early": "LEAD"}, "predicted must name each of the worlds early, half, loud once"),
    ):
        exercises.whose_student(answer)
        assert capsys.readouterr().out == f"exercise 4: {says}\n"


# --- assistants


@pytest.mark.parametrize("teacher", assistants.TEACHERS)
def test_the_committed_gains_are_learnt_again(teacher):
    known = "3 4"
    again = assistants.learn(range(2), tell=str)[assistants.setting(teacher, known)]
    for measure, tolerance in {assistants.DISTANCE: 1e-3, assistants.GAIN: 2 * ROUNDING}.items():
        committed = tried.values(assistants.QUESTION, assistants.setting(teacher, known), measure)
        np.testing.assert_allclose(again[measure], committed[:2], atol=tolerance)
        assert len(committed) == 20


def test_near_is_good_only_where_the_teacher_is_right():
    """What lesson 09 says of the committed students."""
    right, half = (assistants.measured(teacher) for teacher in assistants.TEACHERS)
    far = right[right["distance"] > 0.3]
    assert (far["high"] < 0).all() and right["gain"].idxmax() == right["distance"].idxmin()
    assert half.loc["3 4", "low"] > 5 and half.loc["1 2 3 4", "low"] > 5
    assert (
        half["distance"].idxmin() == "1 2" and half.loc["1 2", "low"] < 0 < half.loc["1 2", "high"]
    )
    assert (
        half["distance"].corr(half["gain"]) > 0.5 and right["distance"].corr(right["gain"]) < -0.5
    )


def test_an_assistant_that_is_the_teacher_is_at_no_distance():
    data = assistants.pair(assistants.TEACHERS["all topics"], assistants.ASSISTANTS["1 2 3 4"], 0)
    assert assistants.distance(data) == 0
    student = torch.randn(4, 128, 128, generator=torch.Generator().manual_seed(0))
    positive = torch.arange(128)
    doubled = assistants.assisted(student, data.teacher, positive, torch.Generator())
    hard = losses.nll(student[-1], positive).mean()
    response = losses.kl(data.teacher[0], student[-1]).mean()
    torch.testing.assert_close(doubled, hard + 2 * response)


def test_every_assistant_is_named_beside_its_point():
    measured = {teacher: assistants.measured(teacher) for teacher in assistants.TEACHERS}
    for axes, table in zip(figures.assisted_gains(measured), measured.values(), strict=True):
        names = {name.replace(", distracted", "*") for name in assistants.ASSISTANTS}
        assert {text.get_text() for text in axes.texts} == names
        points = axes.containers[0].lines[0]
        assert points.get_ydata().tolist() == table["gain"].tolist()
    plt.close("all")
