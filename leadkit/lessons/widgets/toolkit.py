"""Controls over a picture. Without a kernel the picture stays, as it was at first."""

import gc
import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from traitlets import Unicode


class Picture(ipywidgets.Image):
    """A picture with a tooltip.

    ipywidgets' own tooltip is an error in JupyterLab, which looks for a description.
    """

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
    """The figure of these axes as a picture of its size; the figure is closed.

    Ticks, their labels and the grid take most of the time, so they are drawn once for figures whose
    axes look the same.
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
    """The pictures that `draw` makes. The last 256 are kept, so going back costs nothing."""
    return lru_cache(256)(lambda **values: png(draw(**values)))


def explore(draw: Callable[..., Axes], alt: str, **controls: ipywidgets.ValueWidget) -> None:
    """Show draw(name=value of its control, ...) under the controls; draw again when one is moved.

    draw: slow parts (a model, a search) must be computed before.
    alt: what the picture shows at first, in words.
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
    """Show what is found for a query: draw(query=..., passage=...) and the text of the passage.

    queries: suggestions; the first is shown at first. A reader may type another.
    found: query -> passage ids, at least one; the first is shown at first.
    texts: passage id -> text. alt: as in `explore`.
    A blank query changes nothing.
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
    # Garbage collections skip what the lesson holds by now; one in forty pictures would wait 0.3 s.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
