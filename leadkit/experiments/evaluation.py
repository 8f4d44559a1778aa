"""Evaluation: search or re-rank with a finished retriever, and write the result record."""

import json
import time
from dataclasses import dataclass

import numpy as np
import torch

from leadkit.experiments.store import Stage, Trained
from leadkit.experiments.texts import collection, passages_of, queries_of
from leadkit.files import read_tensors, write_json, write_tensors
from leadkit.hardware import device_name, peak_memory_mib, versions
from leadkit.models.retrievers import architecture
from leadkit.retrieval.bm25 import bm25
from leadkit.retrieval.dense import retrieve
from leadkit.retrieval.measures import MEASURES, per_query
from leadkit.retrieval.reranking import rerank
from leadkit.retrieval.runs import Run
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class Evaluate(Stage):
    """Search the collection, or re-rank the top `rerank` of the run `first`.

    ValueError where a retriever that searches is to re-rank, or one that cannot is to search.
    """

    kind = "evaluate"
    retriever: Trained | None  # None: BM25
    split: str
    depth: int
    first: "Evaluate | None" = None
    rerank: int = 0

    def __post_init__(self) -> None:
        name = self.retriever.tower.architecture if self.retriever else "BM25"
        if searches(self.retriever) and self.first:
            raise ValueError(
                f"a {name} searches the collection, so it must not re-rank: leave `first` out"
            )
        if not searches(self.retriever) and not self.first:
            raise ValueError(
                f"a {name} cannot search a collection: give `first`, the run whose top it re-ranks"
            )

    def run(self, operation: Operation) -> None:
        started = time.monotonic()
        texts = collection(self.data.collection)
        run = self._search()
        values = per_query(run, texts, self.split)
        ranking = {
            "rows": torch.from_numpy(run.rows).int(),
            "scores": torch.from_numpy(run.scores),
        }
        write_tensors(self.folder / "run.safetensors", ranking)
        record = {
            "stage": self.describe(),
            "key": self.key,
            "collection": texts.name,
            "fingerprint": texts.fingerprint,
            "split": self.split,
            "measures": {name: round(float(v.mean()), 6) for name, v in values.items()},
            "per_query": {name: [round(float(x), 6) for x in v] for name, v in values.items()},
            "training_seconds": self.retriever.training_seconds() if self.retriever else 0.0,
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_mib": peak_memory_mib(),
            "device": device_name(),
            "versions": versions(),
        }
        write_json(self.folder / "record.json", record)

    def _search(self) -> Run:
        texts = collection(self.data.collection)
        if self.retriever is None:
            return bm25(texts, self.split, self.depth)
        model = self.retriever.model()
        queries = queries_of(model.tower, self.data, self.split)
        passages = passages_of(model.tower, self.data)
        if self.first:
            return rerank(model, queries, passages, self.first.ranking(), self.rerank)
        return retrieve(model, queries, passages, self.depth, texts.own_rows(self.split))

    def ranking(self) -> Run:
        tensors = read_tensors(self.done() / "run.safetensors")
        return Run(tensors["rows"].numpy().astype(np.int64), tensors["scores"].numpy())

    def fingerprint(self) -> str:
        """Fingerprint of the collection, as the record will have it."""
        return collection(self.data.collection).fingerprint

    def record(self) -> dict:
        return json.loads((self.done() / "record.json").read_text())

    def cost(self) -> dict[str, float]:
        """What training the retriever took, with every retriever that it comes from, each once.

        seconds: wall time, of the last run where one was interrupted.
        teacher_passes: batches that teachers, assistants and frozen copies answered.
        """
        behind: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            if stage.key not in behind:
                behind[stage.key] = stage
                for needed in stage.inputs():
                    visit(needed)

        if self.retriever:
            visit(self.retriever)
        trained = [stage for stage in behind.values() if isinstance(stage, Trained)]
        return {
            "seconds": round(sum(stage.seconds() for stage in trained), 1),
            "teacher_passes": sum(stage.teacher_passes() for stage in trained),
        }

    def values(self, measure: str = MEASURES[0]) -> np.ndarray:
        """(Q,): one measure for each query of the split."""
        return np.array(self.record()["per_query"][measure])


def searches(retriever: Trained | None) -> bool:
    """Whether a retriever can search a collection. None is BM25, which can."""
    return retriever is None or architecture(retriever.tower.architecture).searches
