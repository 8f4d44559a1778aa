"""Lesson 06: a training as it goes."""

import time
from base64 import b64encode
from collections.abc import Callable

import ipywidgets
import numpy as np
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from torch import nn

from leadkit.config import Data
from leadkit.data.collections import Collection
from leadkit.data.sampling import groups
from leadkit.experiments.texts import collection, passages_of, queries_of
from leadkit.lessons import figures
from leadkit.lessons.widgets.toolkit import Picture, png
from leadkit.retrieval.dense import search
from leadkit.retrieval.measures import per_query
from leadkit.training.loop import WATCH


def dev_sample(
    data: Data, queries: int = 50, others: int = 200, seed: int = 0
) -> Callable[[nn.Module], float | None]:
    """A function from a model to its MRR@10 in percent on a sample of dev.

    queries: dev queries of the sample. others: passages beside the relevant ones.
    The pool is small, so values are higher than those of a search: compare them with each other
    only.

    The function takes a dual encoder, or an nn.ModuleDict whose "student" is one. It returns None
    for a
    model that cannot search. The model's mode stays as it was.
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
        if not student.searches:
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
    """Watches trainings inside `with Training() as view:`. Prints a line and draws the log.

    Without a front end, e.g. under papermill, the lines and the last picture stay. A finished stage
    is
    not trained again: show its log with `view.draw(stage.log())`.

    measure: model -> MRR@10 in percent or None, asked at every look.
    every: steps between two looks, by default a tenth of the training.
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
        self.picture.value = png(figures.training(log, dev, title, steps))
        self.picture.tooltip = (
            "Curves of the loss's parts, of the layer weights and of MRR@10 on dev over the "
            f"steps. {title}"
        )
