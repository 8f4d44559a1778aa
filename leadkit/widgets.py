"""The interactive parts of the notebooks: controls over a picture. Without a kernel the picture stays, as it was at first."""

import io
from collections.abc import Callable

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.axes import Axes
from traitlets import Unicode


class Picture(ipywidgets.Image):
    """A picture with words, its tooltip. With ipywidgets' own it is an error in JupyterLab, which looks for a description."""

    description = Unicode("").tag(sync=True)


def png(axes: Axes) -> bytes:
    """The figure of these axes as a picture; the figure is closed."""
    file = io.BytesIO()
    axes.figure.savefig(file, format="png", bbox_inches=None, pil_kwargs={"compress_level": 1})
    plt.close(axes.figure)
    return file.getvalue()


def explore(draw: Callable[..., Axes], alt: str, **controls: ipywidgets.ValueWidget) -> None:
    """Show draw(name=value of its control, ...) under the controls, and draw again whenever one of them is moved.

    draw: what is slow (a model, a search) is computed before. alt: what is to be seen, in words, at the controls' first values.
    """
    def drawn() -> bytes:
        return png(draw(**{name: control.value for name, control in controls.items()}))

    picture = Picture(value=drawn(), format="png", tooltip=alt)
    for control in controls.values():
        control.observe(lambda change: setattr(picture, "value", drawn()), "value")
    show(ipywidgets.VBox([ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), picture]), picture.value, alt)


def show(widget: ipywidgets.Widget, picture: bytes, alt: str) -> None:
    """Display the widget: live where a kernel runs, else as the picture, else as the words."""
    widget.add_class("leadkit")
    display({**widget._repr_mimebundle_(), "image/png": picture, "text/plain": alt}, raw=True)
