"""Tiny collections in BEIR layout, and where the tests' stages and caches go."""

import json
import random
from functools import partial
from math import log
from pathlib import Path

import torch
from torch import Tensor

from leadkit import paths
from leadkit.config import Data, Lead, Scale, Schedule
from leadkit.data.tokens import tokenise
from leadkit.experiments import texts
from leadkit.experiments.store import Stage
from leadkit.training.loop import Operation

WORDS = (
    "array axis batch cache class color column count data date default dict edge element "
    "error event exception field file float format frame function graph group handler image "
    "index input integer iterator key label layer length line list matrix message method mode "
    "model module name node number object option order output path pattern point position "
    "process query random range result row sample scale sequence server set shape signal size "
    "sort source state string tensor text"
).split()


def logits(*probabilities: float) -> Tensor:
    """Scores (B, 2) whose softmax has these first probabilities of two: log-odds."""
    return torch.tensor([[log(p), log(1 - p)] for p in probabilities], dtype=torch.float64)


def gradients(loss: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)


def score_batch() -> tuple[Tensor, ...]:
    """Student, teacher (3, 4, 5) and their final scores (4, 5) with gradients; positive (4,)."""
    shapes = ((3, 4, 5), (3, 4, 5), (4, 5), (4, 5))
    scores = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    return *scores, torch.tensor([0, 2, 4, 1])


def write_beir(
    folder: Path,
    passages: dict[str, str],
    queries: dict[str, str],
    qrels: dict[str, dict[str, dict[str, int]]],
) -> str:
    """Write a folder in BEIR layout; return its name for `load`."""
    (folder / "qrels").mkdir(parents=True)
    for stem, rows in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in rows.items()]
        (folder / f"{stem}.jsonl").write_text("\n".join(lines) + "\n")
    for split, judged in qrels.items():
        lines = [
            f"{qid}\t{pid}\t{grade}" for qid, row in judged.items() for pid, grade in row.items()
        ]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n"
        )
    return f"beir:{folder}"


def toy(folder: Path, train: int = 24, dev: int = 6, test: int = 6, others: int = 12) -> str:
    """A collection of random words.

    Query i takes its words from passage i; the training queries share some relevant passages.
    """
    draw, passages, queries, qrels = random.Random(0), {}, {}, {"train": {}, "dev": {}, "test": {}}
    for i in range(train + dev + test + others):
        passages[f"p{i}"] = " ".join(draw.choices(WORDS, k=draw.randint(6, 20)))
    for i in range(train + dev + test):
        split = "train" if i < train else "dev" if i < train + dev else "test"
        queries[f"q{i}"] = " ".join(draw.sample(passages[f"p{i}"].split(), 3))
        qrels[split][f"q{i}"] = {f"p{i}": 1} | (
            {f"p{i - 1}": 1} if split == "train" and i % 4 == 1 else {}
        )
    return write_beir(folder, passages, queries, qrels)


def isolate(monkeypatch, folder: Path) -> None:
    """Stages and token files of this test go under `folder`."""
    monkeypatch.setattr(paths, "RUNS", folder / "runs")
    monkeypatch.setattr(texts, "tokenise", partial(tokenise, cache=folder / "cache"))


def save_each_step(monkeypatch) -> None:
    """Trainings of this test write a checkpoint after each step."""
    monkeypatch.setattr(Stage.done, "__defaults__", (Operation(checkpoint_seconds=0.0),))


def data(name: str, **changes: object) -> Data:
    return Data(
        **{"collection": name, "query_tokens": 8, "passage_tokens": 16, "batch": 4, "negatives": 6}
        | changes
    )


def scale(name: str, **changes: object) -> Scale:
    """Everything tiny: untrained encoders of 3 and 2 layers, 3 steps each."""
    steps = Schedule(3, 1e-3)
    values = {
        "teacher_encoder": "random:3x32",
        "student_encoder": "random:2x32",
        "larger_encoder": "random:4x32",
        "data": data(name),
        "warm_up": steps,
        "teacher": steps,
        "student": steps,
        "distil": steps,
        "lead": Lead(k=2),
        "rerank": 5,
        "depth": 20,
    }
    return Scale("toy", **values | changes)
