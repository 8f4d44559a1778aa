"""LEAD on one page: what a layer says, which layers meet, who is heard, what is added up."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leadkit.lessons.figures.layers import towers
from leadkit.lessons.figures.plots import STUDENT, TEACHER, distributions

SELECTION = (1, 3, 5), (2, 5, 11)  # layers of the student and of the teacher, K = 3
HEARD = {"teacher 2": 0.2, "teacher 5": 0.4, "teacher 11": 0.8}  # probability of the positive
SAYS = {"student": (0.3, 0.45, 0.15, 0.1), "teacher": (0.8, 0.12, 0.05, 0.03)}
LOSS = (
    r"$\mathcal{L} = \mathcal{L}_{lyr} + \mathcal{L}_{rep} + \mathcal{L}_{tch} + \mathcal{L}_{stu}$"
)
PARTS = (
    (r"$\mathcal{L}_{lyr}$", "layers: the weighted KLs of panel 3"),
    (r"$\mathcal{L}_{rep}$", "final scores: KL(t, s) + KL(s, t)"),
    (r"$\mathcal{L}_{tch}$", "the teacher learns from the labels"),
    (r"$\mathcal{L}_{stu}$", "the student learns from the labels"),
)


def napkin() -> Figure:
    """LEAD in four panels, for a page in landscape format."""
    figure, panels = plt.subplots(2, 2, figsize=(11.7, 8.3))
    figure.subplots_adjust(left=0.1, right=0.98, top=0.86, bottom=0.09, hspace=0.4, wspace=0.15)
    figure.suptitle("LEAD on a napkin: a student learns from its teacher's layers", fontsize=19)
    (first, second), (third, fourth) = panels
    _features(first)
    towers(*SELECTION, "2  Draw K layers of each, keep the order", axes=second)
    _weights(third)
    _loss(fourth)
    for axes in panels.flat:
        axes.set_title(axes.get_title(), fontsize=14, y=1.03)
    return figure


def _features(axes: Axes) -> None:
    """Eq. (4) and (5)."""
    distributions(SAYS, "1  A layer is a distribution over passages", axes=axes)
    legend = axes.get_legend()
    assert legend is not None
    legend.remove()
    axes.text(0.45, 0.72, "teacher layer", color=TEACHER, fontsize=13)
    axes.text(1.05, 0.4, "student layer", color=STUDENT, fontsize=13)
    axes.text(1.75, 0.86, r"$t_i = \mathrm{softmax}(f(q, \cdot))$", fontsize=15)
    axes.text(1.75, 0.6, "compare with\n" r"$D_{KL}(t_{a_i}, s_{b_i})$", fontsize=15)
    axes.set(xlabel="passage (1 is the positive)", ylim=(0, 1))


def _weights(axes: Axes) -> None:
    """Eq. (7)."""
    total = sum(HEARD.values())
    weights = {name: value / total for name, value in HEARD.items()}
    axes.barh(list(weights), list(weights.values()), color=TEACHER)
    for row, (name, value) in enumerate(HEARD.items()):
        text = f"  {value:.1f} / {total:.1f} = {weights[name]:.2f}"
        axes.text(weights[name], row, text, va="center", fontsize=13)
    axes.text(
        0.6, -0.1, r"$w_i \propto t_{a_i}(p^+)^{1/\tau_l}$" "\n" r"here $\tau_l = 1$", fontsize=15
    )
    axes.set(title="3  Listen to layers that know the positive", xlim=(0, 1))
    axes.set_xlabel("weight: probability of the positive, divided by the sum")
    axes.grid(visible=False)


def _loss(axes: Axes) -> None:
    """Eq. (12)."""
    axes.set_title("4  Add four losses; both models learn")
    axes.text(0.02, 0.86, LOSS, fontsize=19)
    for row, (symbol, meaning) in enumerate(PARTS):
        axes.text(0.02, 0.66 - 0.15 * row, symbol, fontsize=17)
        axes.text(0.17, 0.66 - 0.15 * row, meaning, fontsize=13)
    axes.text(0.02, 0.04, "Search uses only the student's last layer.", fontsize=13, style="italic")
    axes.axis("off")
