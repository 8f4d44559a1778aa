"""LEAD on one GPU at the paper's sizes: steps, encoding and exact search, against a plain reference and the GPU's own matmul.

BERT-base with random weights, real texts (python-docs) at their own lengths. A rate counts the encoders' matrix products of real
tokens alone: no padding, no MaxSim, no loss. `python bench/gpu.py tiny` tries every line on any machine, and measures nothing.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import lead_step
import numpy as np
import records
import torch
from transformers import AutoModel, BertConfig

from leadkit.experiments import distillation
from leadkit.config import Data, Scale, scale
from leadkit.models.encoders import load_tokenizer
from leadkit.experiments.pipeline import Pipeline
from leadkit.models.retrievers import build
from leadkit.retrieval.dense import encode_share, torch_search
from leadkit.experiments.store import DEVICE, passages_of


@dataclass(frozen=True)
class Size:
    """What is measured: by default the paper's towers, and MS MARCO's passages and dev queries."""

    collection: str = "python-docs"
    hidden: int = 768
    heads: int = 12
    layers: tuple[int, int] = (6, 12)  # of student and teacher
    batch: int = 64
    passages: tuple[int, ...] = (2, 4, 8, 16)  # per query; 8 is the paper's
    steps: int = 10
    matrix: int = 8192
    vectors: int = 8_841_823
    asked: int = 6_980
    trained: int = 502_939  # training queries that have a relevant passage
    depth: int = 1000


TARGETS = {
    "queries a second, times the reference's in float32": 3,
    "the same, in bfloat16": 1.5,
    "step, share of the matmul": 0.45,
    "encoding, share of the matmul": 0.55,
    "memory, share of the reference's in float32": 1 / 3,
    "search, seconds": 3,
    "loading, share of a step": 0.03,
}
TINY = Size("python-docs:smoke", 32, 2, (6, 12), 2, (2, 8), 1, 64, 500, 20, 100, 10)


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], times: int) -> float:
    """A run of the work, the median of so many after one that is not counted."""
    found = []
    for _ in range(times + 1):
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:]))


def operations(lengths: np.ndarray, layers: int, hidden: int) -> float:
    """Of the matrix products of a forward pass over texts of so many tokens: in each layer 24 h^2 a token, and 4 h for each token
    that it attends to."""
    return float(
        layers * (24 * hidden**2 * lengths + 4 * hidden * np.square(lengths, dtype=float)).sum()
    )


def matmul(size: Size) -> float:
    """Operations a second of a large product in bfloat16: the ceiling."""
    a, b = (
        torch.randn(size.matrix, size.matrix, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)
    )
    return 2 * size.matrix**3 / seconds(lambda: a @ b, 20)


def towers(size: Size, folder: Path) -> Scale:
    """The gpu scale with BERTs of this size, weights drawn at random, student and teacher."""
    tokenizer, names = load_tokenizer("bert-6x128"), []
    for layers in size.layers:
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            num_hidden_layers=layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.hidden,
        )
        AutoModel.from_config(config).save_pretrained(folder / str(layers))
        tokenizer.save_pretrained(folder / str(layers))
        names.append(str(folder / str(layers)))
    data = Data(size.collection, 32, 144, size.batch)
    weight = size.hidden**-0.5  # so that no softmax is saturated
    return replace(
        scale("gpu"),
        student_encoder=names[0],
        teacher_encoder=names[1],
        data=data,
        dropout=0.0,
        bf16=True,
        score_scale={"DE": weight, "CB": weight / 32},
    )


def step(chosen: Scale, version: str, size: Size) -> dict:
    """Seconds of a step of "leadkit" or of the reference in "float32" or "bfloat16", and what it takes at most."""
    pipeline = Pipeline(chosen)
    at = {
        name: distillation.batches(pipeline.miner, stage.tower)
        for name, stage in {"student": pipeline.student, "teacher": pipeline.teacher}.items()
    }
    run = (
        lead_step.leadkit(pipeline)
        if version == "leadkit"
        else lead_step.plain(chosen, version == "bfloat16")
    )
    loaded = [{name: batches(i) for name, batches in at.items()} for i in range(size.steps)]
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    on_device = {name: [batch[name].to(DEVICE) for batch in loaded].__getitem__ for name in at}
    (first,) = run(1, on_device)
    started = time.perf_counter()
    run(size.steps, on_device)
    synchronise()
    each = (time.perf_counter() - started) / size.steps
    started = time.perf_counter()
    for i in range(size.steps):
        for batches in at.values():
            batches(i)
    loading = (time.perf_counter() - started) / size.steps
    work = sum(
        operations(tokens.mask.sum(1).numpy(), layers, size.hidden)
        for batch in loaded
        for (name, layers) in zip(at, size.layers, strict=True)
        for tokens in (batch[name].queries, batch[name].passages)
    )
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else float("nan")
    return {
        "first loss": first,
        "seconds": each,
        "queries a second": chosen.data.batch / each,
        "operations a second": 3 * work / size.steps / each,  # backward: twice as many as forward
        "memory GiB": memory,
        "loading seconds": loading,
    }


def encoding(chosen: Scale, size: Size) -> tuple[float, float]:
    """Of encoding passages with the student: operations a second, seconds a passage."""
    model = build(Pipeline(chosen).student.tower).to(DEVICE).eval()
    texts = passages_of(model.tower, chosen.data)
    spent = seconds(lambda: encode_share(model, texts, "encoding"), 3)
    return operations(texts.lengths, size.layers[0], size.hidden) / spent, spent / len(texts)


def search(size: Size) -> float:
    """Seconds of the exact search over random vectors in float16, from and to the host."""
    queries, passages = (
        torch.randn(n, size.hidden, device=DEVICE, dtype=torch.float16).cpu().numpy()
        for n in (size.asked, size.vectors)
    )
    return seconds(lambda: torch_search(queries, passages, size.depth, DEVICE), 3)


def recipe(size: Size, step: float, encoding: float, search: float) -> dict[str, float]:
    """GPU hours of the paper's recipe on MS MARCO passages, for one teacher: its four trainings, with LEAD's, and the encoding and
    searching between them and at the end.

    step: seconds of a LEAD step; a training of fewer layers takes as much less. encoding: of a passage by the student; the miner
    takes as much longer as it has layers. search: of a query.
    """
    paper, (student, teacher) = scale("paper"), size.layers
    layers = student * paper.student.steps + teacher * (paper.warm_up.steps + paper.teacher.steps)
    return {
        "training": step * (paper.distil.steps + layers / (student + teacher)) / 3600,
        "encoding": encoding * size.vectors * (1 + teacher / student) / 3600,
        "searching": search * (size.trained + size.asked) / 3600,
    }


def main(size: Size) -> dict:
    """Every figure; of each target, what was wanted and what was measured."""
    ceiling = matmul(size)
    with tempfile.TemporaryDirectory() as folder:
        chosen = towers(size, Path(folder))
        sizes = {n: replace(chosen, data=replace(chosen.data, passages=n)) for n in size.passages}
        found = {n: step(one, "leadkit", size) for n, one in sizes.items()}
        plain = {version: step(sizes[8], version, size) for version in ("float32", "bfloat16")}
        (encoded, each), ours, searched = encoding(chosen, size), found[8], search(size)
    measured = {
        "queries a second, times the reference's in float32": ours["queries a second"]
        / plain["float32"]["queries a second"],
        "the same, in bfloat16": ours["queries a second"] / plain["bfloat16"]["queries a second"],
        "step, share of the matmul": ours["operations a second"] / ceiling,
        "encoding, share of the matmul": encoded / ceiling,
        "memory, share of the reference's in float32": ours["memory GiB"]
        / plain["float32"]["memory GiB"],
        "search, seconds": searched,
        "loading, share of a step": ours["loading seconds"] / ours["seconds"],
    }
    targets = {name: (target, measured[name]) for name, target in TARGETS.items()}
    return {
        "matmul, operations a second": ceiling,
        "reference": plain,
        "leadkit, by passages a query": found,
        "encoding, operations a second": encoded,
        "targets and measured": targets,
        "the paper's recipe, GPU hours": recipe(size, ours["seconds"], each, searched / size.asked),
    }


if __name__ == "__main__":
    tiny = sys.argv[1:] == ["tiny"]
    if not tiny and DEVICE.type != "cuda":
        if not records.path().exists():  # where it was run once, that record stays
            records.write(
                {
                    "targets and measured": {
                        name: (target, "not run: no GPU") for name, target in TARGETS.items()
                    },
                    "the paper's recipe, GPU hours": "not run: no GPU",
                }
            )
        sys.exit("no GPU: not run")
    measured = main(TINY if tiny else Size())
    for name, (target, value) in measured["targets and measured"].items():
        print(f"{name:52} {value:8.3f}   target {target:.2f}")
    hours = measured["the paper's recipe, GPU hours"]
    print(
        f"the paper's recipe: {sum(hours.values()):.1f} GPU hours ({', '.join(f'{name} {h:.1f}' for name, h in hours.items())}), "
        f"on eight at best {sum(hours.values()) / 8:.1f} hours"
    )
    if not tiny:
        records.write(measured)
