"""Lessons 06 to 09: watching changes no training; filters and figures show what is there."""

import io
import json
from base64 import b64decode

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from toys import data, isolate, scale, toy

from leadkit.config import Schedule
from leadkit.data.sampling import groups
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.texts import collection, passages_of, queries_of
from leadkit.lessons import figures, widgets
from leadkit.lessons.widgets import ledger as ledger_widget
from leadkit.lessons.widgets import toolkit
from leadkit.lessons.widgets import training as training_widget
from leadkit.retrieval import dense
from leadkit.training.loop import WATCH, fit


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def weights(folder):
    return {path.name: load_file(path) for path in sorted(folder.rglob("*.safetensors"))}


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[file][name], b[file][name]) for file in a for name in a[file] | b[file]
    )


# --- looking on


def toy_fit(folder, steps=4):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.Linear(16, 1))

    def loss_at(step):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        return {
            "total": net(x).square().mean(),
            "student": net(x).square().mean(),
            "w1": torch.tensor(0.25),
        }

    log = fit(net, loss_at, Schedule(steps, 1e-2), 3, folder, "toy")
    return [p.detach().clone() for p in net.parameters()], log


def test_watch_is_called_after_every_step_and_only_inside(tmp_path):
    seen = []
    token = WATCH.set(
        lambda label, model, log, steps: seen.append(
            (label, type(model), len(log), steps, model.training)
        )
    )
    toy_fit(tmp_path / "a", 3)
    WATCH.reset(token)
    toy_fit(tmp_path / "b", 3)
    assert seen == [("toy", nn.Sequential, n, 3, True) for n in (1, 2, 3)]


def test_whoever_draws_random_numbers_while_looking_changes_nothing(tmp_path):
    parameters, log = toy_fit(tmp_path / "unwatched")

    def measure(model):
        torch.manual_seed(99)
        return float(torch.rand(5).sum())

    with widgets.Training(measure, every=1):
        watched, watched_log = toy_fit(tmp_path / "watched")
    assert log == watched_log and all(
        torch.equal(a, b) for a, b in zip(parameters, watched, strict=True)
    )


@pytest.mark.slow
def test_stage_has_the_same_key_and_the_same_weights_whether_or_not_it_is_watched(
    tmp_path, monkeypatch, capsys
):
    """With dropout, in two separate folders: so what is compared was trained twice."""
    collection_name, ends = toy(tmp_path / "toy"), {}
    for name in ("unwatched", "watched"):
        isolate(monkeypatch, tmp_path / name)
        stage = Pipeline(scale(collection_name, dropout=0.2)).distil("LEAD")
        for needed in stage.inputs():
            needed.done()
        if name == "watched":
            with widgets.Training(
                widgets.dev_sample(stage.data, queries=4, others=10), every=1
            ) as view:
                folder = stage.done()
            assert list(view.dev) == [1, 2, 3] and all(
                0 <= value <= 100 for value in view.dev.values()
            )
            assert capsys.readouterr().out.count("dev MRR@10") == 3
        else:
            folder = stage.done()
        ends[name] = stage.key, stage.log(), weights(folder)
    (key, log, end), (watched_key, watched_log, watched_end) = ends.values()
    assert (key, log) == (watched_key, watched_log) and same(end, watched_end)


def test_finished_stage_is_not_trained_and_shows_its_log_at_once(common, capsys):
    stage = Pipeline(scale(common)).distil("LEAD")
    stage.done()
    capsys.readouterr()
    with widgets.Training() as view:
        empty = view.picture.value
        stage.done()
        assert view.picture.value == empty
        view.draw(stage.log(), title="finished")
    assert capsys.readouterr().out == "" and view.picture.value != empty
    expected = widgets.png(figures.training(stage.log(), title="finished"))
    assert view.picture.value == expected


def lines(view, calls):
    for done, seconds in calls:
        view.clock = seconds
        log = [{"step": i, "total": 2.0, "student": 2.0 - i} for i in range(done)]
        view("LEAD", nn.Identity(), log, 8)


def test_lines_at_intervals_with_the_time_left(monkeypatch, capsys):
    view = widgets.Training(lambda model: 12.5, every=3)
    monkeypatch.setattr(training_widget.time, "monotonic", lambda: view.clock)
    lines(view, [(n, 10.0 * n) for n in range(1, 9)])
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(":  ")[0] for line in out] == [
        "LEAD: step 3 of 8, 50 s left",
        "LEAD: step 6 of 8, 20 s left",
        "LEAD: step 8 of 8, 0 s left",
    ]
    assert out[0].endswith("total 2.000  student 0.000  dev MRR@10 12.5") and view.dev == {
        3: 12.5,
        6: 12.5,
        8: 12.5,
    }
    # Resumed from its first checkpoint: the time between does not count, earlier values are gone.
    lines(view, [(2, 1000.0), (3, 1002.0)])
    assert capsys.readouterr().out.startswith("LEAD: step 3 of 8, 10 s left:  ") and view.dev == {
        3: 12.5
    }


def test_by_default_a_tenth_of_the_training_and_no_measure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(widgets.Training, "draw", lambda *_, **__: None)
    with widgets.Training() as view:
        toy_fit(tmp_path, 25)
    steps = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert steps == [str(n) for n in (*range(2, 25, 2), 25)] and view.dev == {}
    with pytest.raises(ValueError, match="every is 0: a look needs at least 1 step"):
        widgets.Training(every=0)


def test_hook_is_gone_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError), widgets.Training():
        raise RuntimeError
    assert WATCH.get() is None


# --- MRR@10 on a sample


def opinionated(model):
    """Give the model large random weights: without, all passages have nearly the same score."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def test_dev_sample_is_the_mrr_of_a_slow_loop(common):
    stage = Pipeline(scale(common)).student
    model = opinionated(stage.model())
    texts = collection(common)
    measure = widgets.dev_sample(
        stage.data, queries=100, others=10_000
    )  # every dev query, every passage
    passages, queries = (
        passages_of(stage.tower, stage.data),
        queries_of(stage.tower, stage.data, "dev"),
    )
    with torch.no_grad():
        p, q = (model.encode(each.rows(np.arange(len(each)))) for each in (passages, queries))
    reciprocal = []
    for group in groups(texts, "dev"):
        scores = (p @ q[group.query]).tolist()
        rank = 1 + sum(score > max(scores[row] for row in group.relevant) for score in scores)
        reciprocal.append(1 / rank if rank <= 10 else 0)
    assert (
        measure(model) == pytest.approx(100 * np.mean(reciprocal)) and 0 < np.mean(reciprocal) < 1
    )
    both = nn.ModuleDict({"student": model, "teacher": nn.Identity()})
    assert measure(both) == measure(model)


def test_dev_sample_is_small_seeded_and_has_every_relevant_passage(common, monkeypatch):
    found = []
    monkeypatch.setattr(
        training_widget,
        "search",
        lambda q, p, depth: found.append((q, p)) or dense.search(q, p, depth),
    )
    stage = Pipeline(scale(common)).student
    model = opinionated(stage.model())
    values = [widgets.dev_sample(stage.data, 3, 5, seed)(model) for seed in (0, 0, 1)]
    (q, p), (q_again, p_again), (q_other, _) = found
    assert len(q) == 3 and 3 <= len(p) <= 3 + 5 and values[0] == values[1]
    assert (
        np.array_equal(q, q_again) and np.array_equal(p, p_again) and not np.array_equal(q, q_other)
    )
    texts = (
        passages_of(stage.tower, stage.data),
        queries_of(stage.tower, stage.data, "dev"),
    )
    passages, queries = (
        model.encode(each.rows(np.arange(len(each)))).detach().numpy() for each in texts
    )

    def among(rows, vectors):
        return [any(np.allclose(row, vector, atol=1e-4) for vector in vectors) for row in rows]

    asked = [
        group
        for group in groups(collection(common), "dev")
        if among(queries[[group.query]], q) == [True]
    ]
    relevant = [row for group in asked for row in group.relevant]
    assert len(asked) == 3 and all(among(p, passages)) and all(among(passages[relevant], p))


@pytest.mark.parametrize("training", [True, False])
def test_dev_sample_has_no_dropout_and_leaves_mode_and_gradients(common, training):
    model = opinionated(Pipeline(scale(common, dropout=0.5)).student.model()).train(training)
    measure = widgets.dev_sample(data(common))
    assert measure(model) == measure(model)
    assert all(module.training is training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_retriever_that_cannot_search_has_no_value(common):
    assert widgets.dev_sample(data(common))(Pipeline(scale(common)).teacher.model()) is None  # a CB


# --- the ledger


@pytest.fixture
def ledger():
    rows = {
        "de-rd": (3, "DE: RD > FD", "holds", 1.0, 0.5, 1.5, 0.01, 2.0),
        "cb-rd": (3, "CB: RD > FD", "undecided", 0.1, -1.0, 1.2, 1.0, 3.0),
        "joint": (6, "with <b>joint</b> (training)", "contradicted", -1.0, -2.0, -0.5, 0.02, 0.5),
        "prod": ("PROD", "PROD > student", "not run", *[np.nan] * 5),
    }
    columns = ["table", "claim", "verdict", "difference", "low", "high", "p", "paper"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


@pytest.mark.parametrize(
    "filters, expected",
    [
        ({}, ["de-rd", "cb-rd", "joint", "prod"]),
        ({"table": 3}, ["de-rd", "cb-rd"]),
        ({"table": "PROD"}, ["prod"]),
        ({"verdict": "holds"}, ["de-rd"]),
        ({"text": "rd >"}, ["de-rd", "cb-rd"]),
        ({"text": " Prod "}, ["prod"]),
        ({"text": "(training)"}, ["joint"]),
        ({"text": "("}, ["joint"]),
        ({"text": "cb-rd"}, ["cb-rd"]),
        ({"text": "nothing"}, []),
        ({"table": 3, "verdict": "undecided", "text": "fd"}, ["cb-rd"]),
        ({"table": 6, "verdict": "holds"}, []),
    ],
)
def test_filters(ledger, filters, expected):
    before = ledger.copy()
    assert list(widgets.matching(ledger, **filters).index) == expected
    pd.testing.assert_frame_equal(ledger, before)


def shown(monkeypatch, call):
    """The root widget, its picture and its words."""
    found = []
    for module in (toolkit, ledger_widget):
        monkeypatch.setattr(module, "show", lambda *arguments: found.append(arguments))
    call()
    (arguments,) = found
    return arguments


def test_ledger_widget_filters_table_and_picture_and_escapes(ledger, monkeypatch):
    root, picture, words = shown(monkeypatch, lambda: widgets.claims_ledger(ledger))
    controls, table, image = root.children
    by = {control.description: control for control in controls.children}
    assert [label for label, _ in by["table"].options] == ["all", "3", "6", "PROD"]
    assert "&lt;b&gt;joint&lt;/b&gt;" in table.value and "<b>" not in table.value
    assert picture == image.value and Image.open(io.BytesIO(picture)).width > 200
    assert all(claim in words for claim in ledger["claim"])
    for name, value, expected in (
        ("table", 3, ["DE: RD &gt; FD", "CB: RD &gt; FD"]),
        ("verdict", "undecided", ["CB: RD &gt; FD"]),
        ("words", "DE:", []),
    ):
        before = image.value
        by[name].value = value
        assert table.value.count("<tr") == 1 + len(expected) and all(
            sentence in table.value for sentence in expected
        )
        assert image.value != before
    assert "NaN" not in table.value


def test_long_claim_is_shown_whole(ledger, monkeypatch):
    ledger.loc["joint", "claim"] = "word " * 40 + "the last"
    root, _, _ = shown(monkeypatch, lambda: widgets.claims_ledger(ledger))
    assert "word the last" in root.children[1].value


def test_verdicts_draws_every_claim_that_was_run(ledger):
    axes = figures.verdicts(ledger)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ledger["claim"][:3])
    assert axes.get_title() == "3 of 4 claims could be judged"
    drawn = {
        container.get_label(): (
            container.lines[0].get_xdata().tolist(),
            container.lines[0].get_ydata().tolist(),
            [tuple(x for x, _ in segment) for segment in container.lines[2][0].get_segments()],
        )
        for container in axes.containers
    }
    assert drawn == {
        "holds: 1": ([1.0], [0], [(0.5, 1.5)]),
        "undecided: 1": ([0.1], [1], [(pytest.approx(-1), 1.2)]),
        "contradicted: 1": ([-1.0], [2], [(-2.0, -0.5)]),
    }
    figures.verdicts(ledger[:0])
    one_seed = ledger[:1].assign(low=np.nan, high=np.nan)
    assert figures.verdicts(one_seed).containers[0].lines[0].get_xdata().tolist() == [1.0]


def test_differences_write_what_lies_beyond_the_axis():
    table = pd.DataFrame(
        {"difference": [0.5, -4.5], "low": [0.1, -5.0], "high": [0.9, -4.0], "paper": [3.0, 1.0]},
        index=["inside", "far"],
    )
    axes = figures.differences(table, "t")
    assert axes.get_xlim() == (-2, 2)
    assert [text.get_text() for text in axes.texts] == ["paper +3.0", "ours -4.5"]
    diamonds = next(line for line in axes.lines if "paper" in str(line.get_label()))
    assert (diamonds.get_xdata().tolist(), diamonds.get_ydata().tolist()) == ([1.0], [1])
    figures.differences(table.drop(columns="paper"), "t")
    wider = figures.differences(table, "t", limit=4)
    assert wider.get_xlim() == (-4, 4)
    assert [text.get_text() for text in wider.texts] == ["", "ours -4.5"]


def test_primary_claims_carry_their_verdicts_and_a_teachers_is_told_apart():
    said = ["CB teacher: LEAD > RD", "the CB teacher after LEAD > trained alone, as long (ours)"]
    ends = {"difference": [1.0, -1.0], "low": [0.5, -1.5], "high": [1.5, -0.5]}
    made = {"family": "primary", "seeds": 5, "claim": said, "verdict": ["holds", "contradicted"]}
    table = pd.DataFrame(made | ends)
    others = table.assign(family="Table 3"), table.assign(seeds=0)
    axes = figures.primary(pd.concat([others[0], table, others[1]]))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        "LEAD > RD: holds",
        "the CB teacher after LEAD > trained alone, as long: contradicted",
    ]
    drawn = {each.get_label(): each.lines[0].get_xdata().tolist() for each in axes.containers}
    assert drawn == {"student, 95% interval": [1.0], "teacher, 95% interval": [-1.0]}


# --- what is drawn


def curves(axes):
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes.get_lines()
    }


def test_training_draws_parts_weights_and_dev():
    log = [
        {
            "step": 0,
            "total": 3.0,
            "layer": 1.0,
            "teacher": 0.0,
            "student": 2.0,
            "w1": 0.25,
            "w2": 0.75,
            "d0": 9.0,
            "chosen": 4,
        },
        {
            "step": 1,
            "total": 1.0,
            "layer": 0.0,
            "teacher": 0.0,
            "student": 1.0,
            "w1": 0.5,
            "w2": 0.5,
            "d0": 9.0,
            "chosen": 4,
        },
    ]
    parts, layers, dev = figures.training(log, {2: 30.0}, "LEAD", 8).figure.axes
    assert curves(parts) == {
        "layer": ([1, 2], [1.0, 0.5]),
        "student": ([1, 2], [2.0, 1.5]),
    }  # no part that is always zero
    assert curves(layers) == {"w1": ([1, 2], [0.25, 0.375]), "w2": ([1, 2], [0.75, 0.625])}
    assert curves(dev) == {"MRR@10": ([2], [30.0])} and dev.get_xlim() == (0, 9)
    assert len(figures.training([{"step": 0, "total": 1.0, "student": 1.0}]).figure.axes) == 1
    figures.training([])


def test_choices_mark_the_step_and_its_distances():
    far = np.array([[1.0, 4.0, 2.0], [3.0, 2.0, 2.5]])
    left, right = figures.choices(far, far.argmin(0), ["A", "A + B"], 2, "iteration 1").figure.axes
    dots, marked, line = left.get_lines()
    assert (dots.get_xdata().tolist(), dots.get_ydata().tolist()) == ([1, 2, 3], [0, 1, 0])
    assert (marked.get_xdata(), marked.get_ydata(), line.get_xdata()) == ([2], [1], [2, 2])
    assert [bar.get_width() for bar in right.patches] == [
        4.0,
        2.0,
    ] and right.get_title() == "Step 2: A + B"
    assert right.patches[1].get_facecolor()[:3] == pytest.approx(figures.ASSISTANT)
    assert right.get_lines()[0].get_xdata() == pytest.approx(far.mean(1))


def test_every_move_of_the_slider_draws_another_picture(monkeypatch):
    far = np.array([[1.0, 4.0, 2.0], [3.0, 2.0, 2.5]])
    root, picture, _ = shown(
        monkeypatch,
        lambda: widgets.explore(
            lambda step: figures.choices(far, far.argmin(0), ["A", "A + B"], step, ""),
            "words",
            step=ipywidgets.IntSlider(1, 1, 3),
        ),
    )
    slider, image = root.children[0].children[0], root.children[1]
    pictures = [picture]
    for step in (2, 3):
        slider.value = step
        pictures.append(image.value)
    assert len(set(pictures)) == 3
    slider.value = 1
    assert image.value == picture


def test_bundle_is_live_picture_and_words(monkeypatch):
    view = widgets.Training()
    view.draw([{"step": 0, "student": 1.0}], title="toy")
    bundle = view._bundle()
    assert (
        "application/vnd.jupyter.widget-view+json" in bundle
        and "leadkit" in view.widget._dom_classes
    )
    assert (
        b64decode(json.loads(json.dumps(bundle))["image/png"]) == view.picture.value
        and "toy" in bundle["text/plain"]
    )
