"""What gpu.py measures: the GPU's own matrix product, a LEAD step, encoding and exact search."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lead_step
import numpy as np
import torch
from measuring import seconds
from transformers import AutoModel, BertConfig

from leadkit.config import Data, Scale, scale
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.texts import passages_of
from leadkit.hardware import DEVICE
from leadkit.models.batch import Batch
from leadkit.models.retrievers import build
from leadkit.models.tokenizers import load_tokenizer
from leadkit.retrieval.dense import encode_share, torch_search


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


def synchronised_seconds(work: Callable[[], object]) -> float:
    """Wall time of one run of the work, the GPU's included."""

    def run() -> None:
        work()
        synchronise()

    synchronise()
    (spent,) = seconds(run)
    return spent


def median_seconds(work: Callable[[], object], times: int) -> float:
    """The median of so many runs, after one that is not counted."""
    return float(np.median([synchronised_seconds(work) for _ in range(times + 1)][1:]))


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def operations(lengths: np.ndarray, layers: int, hidden: int) -> float:
    """Operations of the matrix products in a forward pass over texts of these lengths.

    In each layer 24 h^2 for a token, and 4 h for each token that it attends to.
    """
    linear = 24 * hidden**2 * lengths
    attention = 4 * hidden * np.square(lengths, dtype=float)
    return float(layers * (linear + attention).sum())


def matmul(size: Size) -> float:
    """Operations a second of a large product in bfloat16: the ceiling."""
    shape = size.matrix, size.matrix
    a = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn(shape, device=DEVICE, dtype=torch.bfloat16)
    return 2 * size.matrix**3 / median_seconds(lambda: a @ b, 20)


def towers(size: Size, folder: Path) -> Scale:
    """The gpu scale with BERTs of this size, student and teacher, their weights drawn at random."""
    tokenizer = load_tokenizer("bert-6x128")
    encoders = []
    for layers in size.layers:
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            num_hidden_layers=layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.hidden,
        )
        encoder = folder / str(layers)
        AutoModel.from_config(config).save_pretrained(encoder)
        tokenizer.save_pretrained(encoder)
        encoders.append(str(encoder))
    student, teacher = encoders
    return scale(
        "gpu",
        student_encoder=student,
        teacher_encoder=teacher,
        data=Data(size.collection, 32, 144, size.batch),
        dropout=0.0,
        bf16=True,
    )


def measure_step(chosen: Scale, version: str, size: Size) -> dict:
    """A step of "leadkit", or of the reference in "float32" or "bfloat16": seconds and memory."""
    pipeline = Pipeline(chosen)
    batches = lead_step.batches_of(pipeline)
    if version == "leadkit":
        run = lead_step.leadkit(pipeline)
    else:
        run = lead_step.plain(pipeline, version == "bfloat16")
    loaded = {name: [of(i) for i in range(size.steps)] for name, of in batches.items()}
    on_device = {name: [batch.to(DEVICE) for batch in each] for name, each in loaded.items()}
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ready = {name: each.__getitem__ for name, each in on_device.items()}
    (first,) = run(1, ready)
    spent = synchronised_seconds(lambda: run(size.steps, ready)) / size.steps

    def load() -> None:
        for i in range(size.steps):
            for batch_of in batches.values():
                batch_of(i)

    (loading,) = seconds(load)
    work = step_operations(loaded, size) / size.steps
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else float("nan")
    return {
        "first loss": first,
        "seconds": spent,
        "queries a second": chosen.data.batch / spent,
        "operations a second": work / spent,
        "memory GiB": memory,
        "loading seconds": loading / size.steps,
    }


def step_operations(loaded: dict[str, list[Batch]], size: Size) -> float:
    """Operations of all steps. A backward pass takes twice as many as a forward pass."""
    forward = 0.0
    for name, layers in zip(("student", "teacher"), size.layers, strict=True):
        for batch in loaded[name]:
            for tokens in (batch.queries, batch.passages):
                forward += operations(tokens.mask.sum(1).numpy(), layers, size.hidden)
    return 3 * forward


def encoding(chosen: Scale, size: Size) -> tuple[float, float]:
    """Of encoding passages with the student: operations a second, seconds a passage."""
    model = build(Pipeline(chosen).student.tower).to(DEVICE).eval()
    texts = passages_of(model.tower, chosen.data)
    spent = median_seconds(lambda: encode_share(model, texts, "encoding"), 3)
    return operations(texts.lengths, size.layers[0], size.hidden) / spent, spent / len(texts)


def search(size: Size) -> float:
    """Seconds of the exact search over random vectors in float16, from and to the host."""
    queries, passages = (
        torch.randn(n, size.hidden, device=DEVICE, dtype=torch.float16).cpu().numpy()
        for n in (size.asked, size.vectors)
    )
    return median_seconds(lambda: torch_search(queries, passages, size.depth, DEVICE), 3)
