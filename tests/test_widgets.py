"""Controls redraw when they are moved, and only then. Pictures show what the numbers say."""

import gc
import weakref
from base64 import b64decode
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from leadkit.data.tokens import tokenise, tokenise_text
from leadkit.lessons import figures, widgets
from leadkit.lessons.widgets import toolkit
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.retrieval.bm25 import BM25


@pytest.fixture
def shown(monkeypatch) -> list[dict]:
    """The bundles that were displayed."""
    bundles = []
    monkeypatch.setattr(toolkit, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def root(monkeypatch) -> list[ipywidgets.Widget]:
    """The widgets that were shown."""
    roots, show = [], toolkit.show
    monkeypatch.setattr(
        toolkit, "show", lambda widget, *rest: (roots.append(widget), show(widget, *rest))
    )
    return roots


def part(widget: ipywidgets.Widget, kind: type) -> ipywidgets.Widget:
    """The one part of a widget of this kind."""
    found, todo = [], [widget]
    while todo:
        one = todo.pop()
        found += [one] * isinstance(one, kind)
        todo += getattr(one, "children", ())
    (only,) = found
    return only


class Drawn:
    """A drawing function that remembers what it was asked for; every picture differs."""

    def __init__(self):
        self.asked = []

    def __call__(self, **values):
        self.asked.append(values)
        return plt.subplots(figsize=(1, 1), facecolor=str(len(self.asked) / 20))[1]


# --- explore


def test_explore_draws_when_a_control_changes_and_not_otherwise(shown, root):
    draw, layer, tau = (
        Drawn(),
        ipywidgets.IntSlider(value=2, max=9),
        ipywidgets.FloatSlider(value=1.0),
    )
    figures_before = plt.get_fignums()
    widgets.explore(draw, "words", layer=layer, tau=tau)
    picture = part(root[0], ipywidgets.Image)
    first = picture.value
    assert draw.asked == [{"layer": 2, "tau": 1.0}]
    layer.value = 3
    second = picture.value
    layer.value, layer.description = 3, "another name"  # neither is a move
    assert draw.asked[1:] == [{"layer": 3, "tau": 1.0}] and second != first
    tau.value = 0.5
    assert draw.asked[2:] == [{"layer": 3, "tau": 0.5}] and picture.value not in (first, second)
    tau.value, layer.value = 1.0, 2
    assert (
        picture.value == first and {"layer": 2, "tau": 1.0} not in draw.asked[1:]
    )  # kept, not drawn again
    assert plt.get_fignums() == figures_before


def test_the_bundle_holds_the_widget_the_picture_and_the_words(shown, root):
    widgets.explore(Drawn(), "a small picture", layer=ipywidgets.IntSlider())
    (bundle,) = shown
    assert bundle.keys() == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == root[0].model_id
    assert "leadkit" in root[0]._dom_classes
    assert bundle["text/plain"] == "a small picture" == part(root[0], ipywidgets.Image).tooltip
    assert (
        b64decode(bundle["image/png"], validate=True) == part(root[0], ipywidgets.Image).value
    )  # JSON has no bytes


def test_a_picture_is_as_large_as_its_figure_whatever_the_style():
    with plt.rc_context({"savefig.bbox": "tight"}):
        picture = widgets.png(plt.subplots(figsize=(4, 2), dpi=50)[1])
    assert Image.open(BytesIO(picture)).size == (200, 100)


def test_collections_pass_over_what_was_there_before_a_widget_and_keep_no_garbage(shown):
    class Node:
        pass

    def cycle():
        node = Node()
        node.self = node
        return weakref.ref(node)

    garbage = []
    for _ in range(2):  # the second time it was frozen
        garbage.append(cycle())
        widgets.explore(Drawn(), "words", layer=ipywidgets.IntSlider())
        assert gc.get_freeze_count() > 0.9 * (gc.get_freeze_count() + len(gc.get_objects()))
        assert [node() for node in garbage] == [None] * len(garbage)
        kept = Node()
        kept.self, frozen = kept, weakref.ref(kept)
        gc.freeze()
        del kept
        garbage.append(frozen)
    gc.unfreeze()


# --- the search box

EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"
TEXTS = {"a": "first text", "b": EVIL, "<b>c</b>": "third"}
FOUND = {"one": ["a", "b"], "two": ["b", "<b>c</b>"], "three": ["a"]}


LOOKS = {
    "as before": {},
    "limits": {"ylim": (0, 9)},
    "words": {"xlabel": "another"},
    "scale": {"yscale": "log"},
    "ticks": {"xticks": [0]},
    "tick words": {"xticks": [0], "xticklabels": ["?"]},
    "place": {"position": (0.2, 0.2, 0.5, 0.5)},
    "ground": {"facecolor": "0.9"},
    "neither": {"frame_on": False},
}


def look(figsize=(3, 2), height=2.0, tick_size=9, **changes):
    axes = plt.subplots(figsize=figsize)[1]
    axes.bar([0], [height], label="one")
    axes.legend()
    axes.tick_params(labelsize=tick_size)
    axes.set(**{"title": f"height {height}", "ylim": (0.1, 5), "xlabel": "one"} | changes)
    return axes


@pytest.mark.parametrize(
    "changes",
    [*LOOKS.values(), {"figsize": (4, 2)}, {"tick_size": 14}],
    ids=[*LOOKS, "size", "tick size"],
)
def test_a_picture_over_kept_axes_is_that_of_a_new_figure(changes, monkeypatch):
    monkeypatch.setattr(toolkit, "_BARE", {})
    new = {}
    for height in (4, 1):
        new[height] = widgets.png(look(height=height, **changes))
        toolkit._BARE.clear()
    widgets.png(look(height=3))  # other axes, which must not be taken for these
    widgets.png(look(height=3, **changes))
    before = len(toolkit._BARE)
    for height in (4, 1, 4):  # higher and lower: nothing of the last picture is left
        assert widgets.png(look(height=height, **changes)) == new[height]
    assert len(toolkit._BARE) == before == 1 + bool(changes)


def test_settings_of_matplotlib_are_seen():
    before = widgets.png(look())
    with plt.rc_context({"xtick.color": "red"}):
        assert widgets.png(look()) != before
    assert widgets.png(look()) == before


def test_a_figure_drawn_again_shows_what_changed():
    axes = look()
    first = widgets.png(axes)
    axes.patches[0].set_height(1)
    axes.set_title("height 1.0")
    assert widgets.png(axes) == widgets.png(look(height=1.0)) != first


def test_a_figure_drawn_again_finds_its_axes(monkeypatch):
    monkeypatch.setattr(toolkit, "_BARE", {})
    axes = figures.heat(
        np.eye(3), "one", "x", "y", digits=None
    )  # a colour bar takes its place when it is drawn
    first = widgets.png(axes)
    assert widgets.png(axes) == first and len(toolkit._BARE) == 1


def test_only_the_last_few_axes_are_kept(monkeypatch):
    monkeypatch.setattr(toolkit, "_BARE", {})
    for top in range(1, 30):
        widgets.png(look(ylim=(0, top)))
    assert len(toolkit._BARE) == 16


def test_a_figure_is_not_kept_for_its_picture():
    axes = look()
    widgets.png(axes)
    kept = weakref.ref(axes.figure)
    del axes
    gc.collect()
    assert kept() is None


@pytest.fixture
def box(shown, root):
    draw = Drawn()
    widgets.search_box(
        list(FOUND), lambda query: FOUND.get(query, ["<b>c</b>"]), draw, TEXTS, "words"
    )
    query, passage, text, picture = (
        part(root[0], getattr(ipywidgets, kind))
        for kind in ("Combobox", "Dropdown", "HTML", "Image")
    )
    return draw, query, passage, text, picture


def test_search_box_opens_with_its_first_query_and_passage(box, shown):
    draw, query, passage, text, picture = box
    assert (query.value, passage.value, passage.options) == ("one", "a", ("a", "b"))
    assert draw.asked == [{"query": "one", "passage": "a"}] and "first text" in text.value
    assert b64decode(shown[0]["image/png"]) == picture.value


def test_a_new_query_offers_its_own_passages_and_a_passage_is_drawn_once(box):
    draw, query, passage, text, picture = box
    before = picture.value
    passage.value = "b"
    query.value = "two"  # the passage stays b, the picture does not
    assert passage.options == ("b", "<b>c</b>")
    query.value = "typed"
    query.value = "three"
    assert draw.asked[1:] == [
        {"query": "one", "passage": "b"},
        {"query": "two", "passage": "b"},
        {"query": "typed", "passage": "<b>c</b>"},
        {"query": "three", "passage": "a"},
    ]
    assert text.value.endswith("first text") and picture.value != before


def test_a_blank_query_changes_nothing(box):
    draw, query, passage, text, picture = box
    before = passage.options, text.value, picture.value
    query.value = "  "
    assert (passage.options, text.value, picture.value) == before and len(draw.asked) == 1


def test_texts_and_ids_are_escaped(box):
    _, query, passage, text, _ = box
    query.value, passage.value = "two", "b"
    assert "&lt;script&gt;alert(" in text.value and " &amp; &lt;img" in text.value
    assert {tag.split(">")[0] for tag in text.value.split("<")[1:]} == {
        "b",
        "/b",
        "br",
    }  # ours alone
    passage.value = "<b>c</b>"
    assert "&lt;b&gt;c&lt;/b&gt;" in text.value


# --- what the box shows


def test_token_products_against_a_slow_loop(tmp_path):
    torch.manual_seed(0)
    model, tokenizer = (
        build(Tower("CB", "random:3x32", scale=0.25)).eval(),
        load_tokenizer("random:3x32"),
    )
    texts = tokenise(
        {"q": "sort a list", "p": "Lists are sorted in place."}, tokenizer, 16, tmp_path
    )
    query, passage = texts.rows(np.array([0])), texts.rows(np.array([1]))
    products = model.token_products(query, passage).numpy()
    with torch.no_grad():
        q, p = (model.states(tokens, (3,))[0][0] for tokens in (query, passage))
    assert products.shape == (len(q), len(p))
    for x in range(len(q)):
        for y in range(len(p)):
            want = 0.25 * sum(float(a) * float(b) for a, b in zip(q[x], p[y], strict=True))
            assert products[x, y] == pytest.approx(want, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("text", ["Sort a list.", "", "word " * 40])
def test_a_typed_text_is_what_the_collection_would_have(text, tmp_path):
    tokenizer = load_tokenizer("random:2x32")
    want, got = tokenise({"q": text}, tokenizer, 16, tmp_path), tokenise_text(text, tokenizer, 16)
    assert got.row(0).tolist() == want.row(0).tolist() and len(got) == 1
    assert (got.pad, got.between.tolist(), got.kind) == (want.pad, want.between.tolist(), want.kind)


def test_bm25_of_a_typed_text():
    index = BM25(["sorting sorted lists", "graphs", "a list of graphs"])
    run = index.search(["lists of the graph", "the of", "nowhere"], 9)
    assert run.rows.shape == (3, 3) and run.rows[0, 0] == 2
    assert (run.scores[1:] == 0).all() and (run.scores[0] > 0).all()
