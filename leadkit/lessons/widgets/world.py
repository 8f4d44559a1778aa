"""Lesson 05: a made world under sliders, a prediction, and the students that are trained in it."""

from collections.abc import Sequence
from functools import lru_cache

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from leadkit.lessons import figures
from leadkit.lessons.widgets.toolkit import explore
from leadkit.lessons.world import BLOCKS, METHODS, Layer, World, ahead, make, mrr, train

LAYERS = range(1, 7)  # of the teacher
SHOWN = ("control", "RD", "LEAD")
ANSWERS = ("?", "LEAD", "RD", "neither")


def world_of(knowing: tuple[int, int], drowned: float, queries: int) -> World:
    """The teacher's layers from the first to the last of `knowing` know all; its last is drowned.

    drowned: the weight of its distraction; 8 times as much is its certainty.
    """
    first, last = knowing
    layers = [Layer() if first <= number <= last else Layer(()) for number in LAYERS]
    layers[-1] = Layer(layers[-1].knows, drowned, 8 * drowned)
    return World(tuple(layers), queries)


@lru_cache(64)
def students(world: World, blocks: int) -> dict[str, float]:
    """Method -> MRR@10 of a student that is trained now, with seed 0."""
    data = make(world, 0)
    return {name: mrr(train(data, METHODS[name], 0, blocks), data) for name in SHOWN}


def draw(
    knowing: tuple[int, int], drowned: float, blocks: int, queries: int, prediction: str
) -> Axes:
    """The world on the left; on the right its students, once there is a prediction."""
    panels = plt.subplots(1, 2, figsize=(11, 3.6), gridspec_kw={"wspace": 0.4, "bottom": 0.2})[1]
    world = world_of(knowing, drowned, queries)
    figures.teacher_layers(world.layers, axes=panels[0])
    found = {} if prediction == ANSWERS[0] else students(world, blocks)
    shown: dict[str, Sequence[float]] = {name: [found.get(name, 0.0)] for name in SHOWN}
    figures.learnt(shown, _title(found, prediction), axes=panels[1])
    panels[1].set_xlabel(f"MRR@10, percent; {blocks} student blocks, {queries} training queries")
    return panels[0]


def _title(found: dict[str, float], prediction: str) -> str:
    if not found:
        return "Predict, and they are trained"
    leader = ahead(found["LEAD"], found["RD"])
    verdict = "as you said" if leader == prediction else f"you said {prediction}"
    return f"Ahead: {leader} ({verdict})"


def made_world() -> None:
    """Sliders for the world and the student. Moving one takes the prediction back."""
    prediction = ipywidgets.Dropdown(options=ANSWERS, value="LEAD", description="ahead")
    wide = {"continuous_update": False, "style": {"description_width": "9em"}}
    controls = {
        "knowing": ipywidgets.IntRangeSlider(
            value=(1, 5), min=1, max=LAYERS[-1], description="layers that know", **wide
        ),
        "drowned": ipywidgets.FloatSlider(
            value=1.0, min=0.0, max=2.0, step=0.5, description="last layer drowned", **wide
        ),
        "blocks": ipywidgets.IntSlider(
            value=BLOCKS, min=1, max=6, description="student blocks", **wide
        ),
        "queries": ipywidgets.IntSlider(
            value=128, min=32, max=256, step=32, description="training queries", **wide
        ),
    }
    for control in controls.values():
        control.observe(lambda change: setattr(prediction, "value", ANSWERS[0]), "value")
    explore(
        draw,
        "Left: layers 1 to 5 of the teacher know all four topics, the last one is certain and "
        "distracted. Right: the student of LEAD is ahead of the student of RD and of the control.",
        **controls,
        prediction=prediction,
    )
