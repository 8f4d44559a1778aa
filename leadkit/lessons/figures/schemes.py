"""Schemes: who teaches whom, as boxes and arrows."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from leadkit.lessons.figures.plots import ASSISTANT, STUDENT, TEACHER

ARROW = {"arrowstyle": "->", "linewidth": 2, "color": "dimgrey"}
BOX = {"boxstyle": "round,pad=0.5", "ec": "grey", "alpha": 0.6}


def progression() -> Axes:
    """PROD: a student from left to right, its teachers above it, the copies that it keeps below."""
    axes = plt.subplots(figsize=(10, 3.4))[1]
    students = ["student", "stage 1", "stage 2", "stage 3", "PROD"]
    teachers = {"12DE": 0.8, "12CE": 1.2, "24CE": 1.6, "24CE\nharder data": 1.6}  # -> height
    for x, name in enumerate(students):
        axes.text(x, 0, name, ha="center", va="center", bbox=BOX | {"fc": STUDENT})
    for x, (name, height) in enumerate(teachers.items(), start=1):
        axes.text(x, height, name, ha="center", va="center", bbox=BOX | {"fc": TEACHER})
        axes.annotate("", (x, 0.15), (x, height - 0.25), arrowprops=ARROW)
        axes.annotate("", (x - 0.3, 0), (x - 0.7, 0), arrowprops=ARROW)
        if x > 1:
            bent = {"linestyle": "--", "connectionstyle": "arc3,rad=0.3"}
            axes.annotate("", (x - 0.1, -0.15), (x - 0.9, -0.15), arrowprops=ARROW | bent)
    axes.set(xlim=(-0.5, 4.5), ylim=(-0.6, 1.9))
    axes.set_title("A student's way: arrows from above teach, dashed arrows keep")
    axes.axis("off")
    return axes


ASSISTED = {
    "labels": (0, 2, "gold labels", "white"),
    "teacher": (0, 1, "teacher", TEACHER),
    "pool": (0, 0, "pool: 3 plain\n+ 4 fused", "white"),
    "chosen": (1.3, 0, "nearest in\nthis batch", ASSISTANT),
    "student": (2.6, 1, "student", STUDENT),
    "data": (2.6, 2, "harder data", "white"),
}  # name -> x, y, text, colour
IN_EVERY_BATCH = (
    ("labels", "student"),
    ("teacher", "student"),
    ("pool", "chosen"),
    ("teacher", "chosen"),
    ("chosen", "student"),
)
AT_THE_END = (("student", "data"), ("student", "pool"))


def assistance() -> Axes:
    """MTA4DPR: what teaches the student in every batch, and what an iteration changes."""
    axes = plt.subplots(figsize=(9, 3.6))[1]
    boxes = {}
    for name, (x, y, text, colour) in ASSISTED.items():
        drawn = axes.text(x, y, text, ha="center", va="center", bbox=BOX | {"fc": colour})
        boxes[name] = drawn.get_bbox_patch()
    for start, end in IN_EVERY_BATCH + AT_THE_END:
        ends = {
            "patchA": boxes[start],
            "patchB": boxes[end],
            "linestyle": "--" if (start, end) in AT_THE_END else "-",
            "connectionstyle": "arc3,rad=-0.5" if end == "pool" else "arc3",
        }
        axes.annotate("", ASSISTED[end][:2], ASSISTED[start][:2], arrowprops=ARROW | ends)
    axes.set(xlim=(-0.6, 3.1), ylim=(-1.2, 2.3))
    axes.set_title("One iteration: solid in every batch, dashed at its end")
    axes.axis("off")
    return axes
