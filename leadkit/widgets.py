"""The interactive parts of the notebooks: controls over a picture. Without a kernel the picture stays, as it was at first."""

import io
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from html import escape

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.axes import Axes
from traitlets import Unicode


class Picture(ipywidgets.Image):
    """A picture with words, its tooltip. With ipywidgets' own it is an error in JupyterLab, which looks for a description."""

    description = Unicode("").tag(sync=True)


def png(axes: Axes) -> bytes:
    """The figure of these axes as a picture, as large as the figure; the figure is closed."""
    file = io.BytesIO()
    axes.figure.canvas.print_png(file, pil_kwargs={"compress_level": 1})  # savefig would draw twice, to trim the margins
    plt.close(axes.figure)
    return file.getvalue()


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
    show(ipywidgets.VBox([ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), picture]), picture.value, alt)


def search_box(queries: Sequence[str], found: Callable[[str], Sequence[str]], draw: Callable[..., Axes],
               texts: Mapping[str, str], alt: str) -> None:
    """A query, typed or one of `queries`, and a passage of those found for it: draw(query=..., passage=...) and the passage's text.

    found: query -> passage ids, at least one; the first is chosen at first. texts: passage id -> text. alt: as in `explore`.
    A query of nothing but blanks changes nothing.
    """
    frame = _frames(draw)
    query = ipywidgets.Combobox(value=queries[0], options=list(queries), continuous_update=False, description="query",
                                layout={"width": "45em"})
    passage = ipywidgets.Dropdown(options=found(query.value), description="passage", layout={"width": "45em"})
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
    display({**widget._repr_mimebundle_(), "image/png": b64encode(picture).decode(), "text/plain": alt}, raw=True)
