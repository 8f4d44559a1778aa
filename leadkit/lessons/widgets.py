"""The interactive parts of the notebooks: controls over a picture. Without a kernel the picture stays, as it was at first."""

import gc
import io
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from html import escape

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn
from traitlets import Unicode

from leadkit.config import Data
from leadkit.data.collections import Collection
from leadkit.data.sampling import groups
from leadkit.experiments.store import collection, passages_of, queries_of
from leadkit.lessons import experiment_figures
from leadkit.models.retrievers import DualEncoder
from leadkit.retrieval.dense import search
from leadkit.retrieval.measures import per_query
from leadkit.training.loop import WATCH


class Picture(ipywidgets.Image):
    """A picture with words, its tooltip. With ipywidgets' own it is an error in JupyterLab, which looks for a description."""

    description = Unicode("").tag(sync=True)


_BARE: dict[
    tuple, object
] = {}  # what axes look like -> the picture of a figure with nothing in them; the last few


def _look(panel: Axes) -> tuple:
    """All that changes the picture of axes with nothing in them, but for matplotlib's settings."""
    sides = []
    for axis in (panel.xaxis, panel.yaxis):
        ticks = axis.get_majorticklocs()
        sides += [
            axis.get_visible(),
            axis.get_scale(),
            *axis.get_view_interval(),
            *ticks,
            *axis.get_minor_locator()(),
            *axis.get_major_formatter().format_ticks(ticks),
            axis.get_label_text(),
            str(axis.get_tick_params()),
        ]
    return (
        panel.get_position(original=True).bounds,
        panel.axison,
        panel.get_frame_on(),
        panel.get_facecolor(),
        tuple(sides),
    )


def png(axes: Axes) -> bytes:
    """The figure of these axes as a picture, as large as the figure; the figure is closed.

    Ticks, their words and the grid take most of the time: figures whose axes look the same draw them once.
    """
    figure, file = axes.figure, io.BytesIO()
    canvas, panels = FigureCanvasAgg(figure), figure.axes
    bare = [
        figure.patch,
        *(part for panel in panels for part in (panel.patch, panel.xaxis, panel.yaxis)),
    ]
    others = [
        artist
        for box in (figure, *panels)
        for artist in box.get_children()
        if artist not in (*bare, *panels)
    ]
    look = (
        str(plt.rcParams),
        figure.bbox.bounds,
        figure.dpi,
        figure.get_facecolor(),
        *map(_look, panels),
    )
    if look in _BARE:
        canvas.restore_region(_BARE[look])
    else:
        with _hidden(others):
            canvas.draw()
        _BARE[look] = canvas.copy_from_bbox(figure.bbox)
        if len(_BARE) > 16:
            del _BARE[next(iter(_BARE))]
    with _hidden(bare):
        figure.draw(canvas.get_renderer())  # savefig would draw twice, to trim the margins
    plt.imsave(file, canvas.buffer_rgba(), format="png", pil_kwargs={"compress_level": 1})
    plt.close(figure)
    return file.getvalue()


@contextmanager
def _hidden(artists: Sequence[Artist]) -> Iterator[None]:
    visible = [artist for artist in artists if artist.get_visible()]
    for artist in visible:
        artist.set_visible(False)
    try:
        yield
    finally:
        for artist in visible:
            artist.set_visible(True)


def _frames(draw: Callable[..., Axes]) -> Callable[..., bytes]:
    """The pictures that `draw` makes; the last few hundred are kept, so that going back costs nothing."""
    return lru_cache(256)(lambda **values: png(draw(**values)))


def explore(draw: Callable[..., Axes], alt: str, **controls: ipywidgets.ValueWidget) -> None:
    """Show draw(name=value of its control, ...) under the controls, and draw again whenever one of them is moved.

    draw: what is slow (a model, a search) is computed before. alt: what is to be seen, in words, at the controls' first values.
    """
    frame = _frames(draw)

    def drawn() -> bytes:
        return frame(**{name: control.value for name, control in controls.items()})

    picture = Picture(value=drawn(), format="png", tooltip=alt)
    for control in controls.values():
        control.observe(lambda change: setattr(picture, "value", drawn()), "value")
    show(
        ipywidgets.VBox(
            [ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), picture]
        ),
        picture.value,
        alt,
    )


def search_box(
    queries: Sequence[str],
    found: Callable[[str], Sequence[str]],
    draw: Callable[..., Axes],
    texts: Mapping[str, str],
    alt: str,
) -> None:
    """A query, typed or one of `queries`, and a passage of those found for it: draw(query=..., passage=...) and the passage's text.

    found: query -> passage ids, at least one; the first is chosen at first. texts: passage id -> text. alt: as in `explore`.
    A query of nothing but blanks changes nothing.
    """
    frame = _frames(draw)
    query = ipywidgets.Combobox(
        value=queries[0],
        options=list(queries),
        continuous_update=False,
        description="query",
        layout={"width": "45em"},
    )
    passage = ipywidgets.Dropdown(
        options=found(query.value), description="passage", layout={"width": "45em"}
    )
    picture, text = Picture(format="png", tooltip=alt), ipywidgets.HTML()

    def chosen(change: object = None) -> None:
        text.value = f"<b>{escape(passage.value)}</b><br>{escape(texts[passage.value])}"
        picture.value = frame(query=query.value, passage=passage.value)

    def asked(change: object) -> None:
        if query.value.strip():
            passage.options = found(query.value)  # chooses the first
            chosen()

    chosen()
    passage.observe(chosen, "value")
    query.observe(asked, "value")
    show(ipywidgets.VBox([query, passage, picture, text]), picture.value, alt)


def show(widget: ipywidgets.Widget, picture: bytes, alt: str) -> None:
    """Display the widget: live where a kernel runs, else as the picture, else as the words."""
    widget.add_class("leadkit")
    display(
        {**widget._repr_mimebundle_(), "image/png": b64encode(picture).decode(), "text/plain": alt},
        raw=True,
    )
    # Garbage collections pass over what the lesson holds by now: one in forty pictures would wait 0.3 s for it.
    gc.unfreeze()
    gc.collect()
    gc.freeze()


# --- lesson 06: a training as it goes


def dev_sample(
    data: Data, queries: int = 50, others: int = 200, seed: int = 0
) -> Callable[[nn.Module], float | None]:
    """model -> its MRR@10 in percent on so many dev queries, among their relevant passages and `others` of the collection.

    The pool is small, so the values are higher than those of a search: compare them with each other only. model: a dual encoder or
    an nn.ModuleDict whose "student" is one; another cannot search, its value is None. The model's mode stays as it was.
    """
    texts, draw = collection(data.collection), np.random.default_rng(seed)
    every = groups(texts, "dev")
    asked = [
        every[i] for i in sorted(draw.choice(len(every), min(queries, len(every)), replace=False))
    ]
    drawn = draw.choice(len(texts.passages), min(others, len(texts.passages)), replace=False)
    pool = sorted({p for group in asked for p in group.relevant}.union(drawn.tolist()))
    qrels = {str(group.query): {str(p): 1 for p in group.relevant} for group in asked}
    small = Collection(
        "sample of dev",
        texts.fingerprint,
        {str(p): "" for p in pool},
        dict.fromkeys(qrels, ""),
        {"dev": qrels},
    )

    @torch.no_grad()
    def measure(model: nn.Module) -> float | None:
        student = model["student"] if isinstance(model, nn.ModuleDict) else model
        if not isinstance(student, DualEncoder):
            return None
        training, device = student.training, student.encoder.device
        student.eval()  # no dropout
        vectors = []
        for tokens in (
            queries_of(student.tower, data, "dev").take([group.query for group in asked]),
            passages_of(student.tower, data).take(pool),
        ):
            chunks = np.array_split(np.arange(len(tokens)), -(-len(tokens) // 64))
            vectors.append(
                torch.cat([student.encode(tokens.rows(at).to(device)) for at in chunks])
                .cpu()
                .numpy()
            )
        student.train(training)
        return float(
            100 * per_query(search(*vectors, 10), small, "dev", ("RR@10",))["RR@10"].mean()
        )

    return measure


class Training:
    """A look at whatever is trained inside `with Training() as view:`, at intervals: a picture of the log and a printed line.

    Where no front end listens, under papermill for one, the lines are the log and the last picture stays. A finished stage is not
    trained: show its log with `view.draw(stage.log())`. every: steps between two looks, by default a tenth of the training.
    measure: model -> MRR@10 in percent or None, asked at every look.
    """

    def __init__(
        self,
        measure: Callable[[nn.Module], float | None] = lambda model: None,
        every: int | None = None,
    ):
        if every is not None and every < 1:
            raise ValueError(f"every is {every}: a look needs at least 1 step")
        self.measure, self.every, self.dev = (
            measure,
            every,
            {},
        )  # dev: steps done -> what was measured
        self.last = "", 0  # what called last, and how many steps it had done
        self.picture = Picture(format="png")
        self.widget = ipywidgets.VBox([self.picture])
        self.widget.add_class("leadkit")

    def __enter__(self) -> "Training":
        self.draw([], title="nothing was trained yet")
        self._handle = (
            display(self._bundle(), raw=True, display_id=True)
            if InteractiveShell.initialized()
            else None
        )
        self._token = WATCH.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        WATCH.reset(self._token)
        if self._handle:
            self._handle.update(
                self._bundle(), raw=True
            )  # for readers without a kernel: the last picture

    def _bundle(self) -> dict:
        return {
            **self.widget._repr_mimebundle_(),
            "image/png": b64encode(self.picture.value).decode(),
            "text/plain": self.picture.tooltip,
        }

    def __call__(self, label: str, model: nn.Module, log: list[dict], steps: int) -> None:
        done, now = len(log), time.monotonic()
        if self.last != (label, done - 1):  # another training begins, or one is resumed
            self.dev, self.since = {}, (done, now)
        self.last = label, done
        if done % (self.every or max(1, steps // 10)) and done < steps:
            return
        if (value := self.measure(model)) is not None:
            self.dev[done] = value
        first, then = self.since
        left = (
            f", {(now - then) / (done - first) * (steps - done):.0f} s left" if done > first else ""
        )
        title = f"{label}: step {done} of {steps}{left}"
        parts = "  ".join(f"{name} {part:.3f}" for name, part in log[-1].items() if name != "step")
        print(f"{title}:  {parts}" + (f"  dev MRR@10 {value:.1f}" if value is not None else ""))
        self.draw(log, self.dev, title, steps)

    def draw(
        self,
        log: list[dict],
        dev: dict[int, float] | None = None,
        title: str = "",
        steps: int | None = None,
    ) -> None:
        """Show this log instead, at once: that of a finished stage."""
        self.picture.value = png(experiment_figures.training(log, dev, title, steps))
        self.picture.tooltip = f"Curves of the loss's parts, of the layer weights and of MRR@10 on dev over the steps. {title}"


# --- lesson 07: the ledger


def matching(
    ledger: pd.DataFrame, table: int | str | None = None, verdict: str | None = None, text: str = ""
) -> pd.DataFrame:
    """The lines of a `claims.ledger` of this table and verdict whose id or sentence has the text, in capitals or not."""
    words = ledger.index + " " + ledger["claim"]
    keep = words.str.contains(text.strip(), case=False, regex=False)
    for column, value in {"table": table, "verdict": verdict}.items():
        keep &= (ledger[column] == value) if value is not None else True
    return ledger[keep.to_numpy()]


def claims_ledger(ledger: pd.DataFrame) -> None:
    """Show a `claims.ledger` under filters: by table, by verdict, by words. Without a kernel: the figure, or the plain table."""
    options = {
        column: [("all", None), *((str(v), v) for v in ledger[column].unique())]
        for column in ("table", "verdict")
    }
    controls = {
        column: ipywidgets.Dropdown(options=found, description=column)
        for column, found in options.items()
    }
    controls["text"] = ipywidgets.Text(description="words", placeholder="RD, teacher, linear ...")
    lines, picture = ipywidgets.HTML(), Picture(format="png")

    @cache
    def drawn(*ids: str) -> bytes:
        return png(experiment_figures.verdicts(ledger.loc[list(ids)]))

    def refresh(_: object = None) -> None:
        shown = matching(ledger, **{name: control.value for name, control in controls.items()})
        lines.value = (
            shown.round(3).astype(object).where(shown.notna(), "").to_html(border=0, escape=True)
        )
        picture.value = drawn(*shown.index)

    for control in controls.values():
        control.observe(refresh, "value")
    refresh()
    show(
        ipywidgets.VBox(
            [
                ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}),
                lines,
                picture,
            ]
        ),
        picture.value,
        ledger.round(3).to_string(),
    )
