"""Stages: what is computed once and kept. A stage is a frozen dataclass; its inputs are other stages.

The folder of a stage is named by its kind and the hash of its fields, of the collection and of its inputs. A finished stage is
never run again; an interrupted one resumes; one whose files are not what was written is run anew.
"""

import json
import platform
import resource
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from leadkit import processes
from leadkit.retrieval import dense as searching
from leadkit.data.sampling import Tokenised, tokenise
from leadkit.data.collections import Collection, load
from leadkit.config import RUNS, Data
from leadkit.models.encoders import encoder_digest, load_tokenizer
from leadkit.retrieval.measures import MEASURES, per_query
from leadkit.files import alone, digest, fingerprint, read_tensors, write_json, write_tensors
from leadkit.models.retrievers import DualEncoder, Retriever, Tower
from leadkit.models.retrievers import load as load_retriever

DEVICE = processes.device()


@cache
def collection(name: str) -> Collection:
    """The collection of this name, loaded once per process."""
    with processes.main_first():  # it may have to be made
        return load(name)


@cache
def _tokenised(encoder: str, name: str, split: str, longest: int) -> Tokenised:
    """Queries of a split, or, for split "passages", the passages."""
    texts = collection(name).passages if split == "passages" else collection(name).split(split)
    with processes.main_first():
        return tokenise(texts, load_tokenizer(encoder), longest)


def queries_of(tower: Tower, data: Data, split: str) -> Tokenised:
    return _tokenised(tower.encoder, data.collection, split, data.query_tokens)


def passages_of(tower: Tower, data: Data) -> Tokenised:
    return _tokenised(tower.encoder, data.collection, "passages", data.passage_tokens)


@dataclass(frozen=True)
class Stage:
    """Base: identity, folder, and `done()`, which returns the folder after running whatever is missing."""

    kind: ClassVar[str]
    data: Data

    def describe(self) -> dict:
        """Every field, stages among them described in full: what a result record says was run."""
        return {"kind": self.kind} | {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @cached_property
    def key(self) -> str:
        inputs = {
            f.name: v.key if isinstance(v := getattr(self, f.name), Stage) else _plain(v)
            for f in fields(self)
        }
        if isinstance(tower := getattr(self, "tower", None), Tower):
            inputs["encoder"] = encoder_digest(tower.encoder)
        return fingerprint([self.kind, inputs, collection(self.data.collection).fingerprint])

    def inputs(self) -> list["Stage"]:
        """The stages that this one needs."""
        return [value for f in fields(self) if isinstance(value := getattr(self, f.name), Stage)]

    @property
    def folder(self) -> Path:
        return RUNS / f"{self.kind}-{self.key}"

    def finished(self) -> bool:
        """Whether the stage stands whole: every file is what was written."""
        try:
            seal = json.loads((self.folder / "stage.json").read_text())
            whole = all(
                digest(self.folder / name) == value for name, value in seal["files"].items()
            )
            return whole and {"stage", "seconds"} <= seal.keys()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def done(self) -> Path:
        """Run the stage unless it is finished; return its folder. A second program that asks for it waits for the first."""
        processes.agree(self.key, f"stage {self.kind}")
        if not processes.mains(processes.main() and self.finished()):
            with (
                alone(self.folder.with_suffix(".lock"), self.folder)
                if processes.main()
                else nullcontext()
            ):
                if not processes.mains(
                    processes.main() and self.finished()
                ):  # the first may just have finished it
                    self._run()
                    processes.wait()  # until the main process has written
        return self.folder

    def _run(self) -> None:
        if processes.main() and (self.folder / "stage.json").exists():
            print(f"{self.folder} is not what was written there: this stage is run anew")
            shutil.rmtree(self.folder)
        for needed in self.inputs():
            needed.done()
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            self.run()
        except KeyboardInterrupt as stop:
            stop.args = (
                f"{self.folder} is not finished: ask for it again and it goes on, a training from its last checkpoint",
            )
            raise
        if processes.main():
            self._seal(time.monotonic() - started)

    def _seal(self, seconds: float) -> None:
        """Remove what was temporary, and write `stage.json`: the stage is finished."""
        for temporary in self.folder.glob("checkpoint*"):
            temporary.unlink()
        for unfinished in self.folder.glob(".*"):  # what a killed process was writing
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        files = {
            str(p.relative_to(self.folder)): digest(p)
            for p in sorted(self.folder.rglob("*"))
            if p.is_file()
        }
        seal = {"stage": self.describe(), "seconds": round(seconds, 1), "files": files}
        write_json(self.folder / "stage.json", seal)

    def seconds(self) -> float:
        """Wall time of this stage's last run."""
        return json.loads((self.done() / "stage.json").read_text())["seconds"]

    def run(self) -> None:
        """Compute, into `folder`."""
        raise NotImplementedError


def _plain(value: object) -> object:
    if isinstance(value, Stage):
        return value.describe()
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


class Trained(Stage):
    """A stage that ends in a retriever."""

    def teachers(self) -> int:
        """How many other models answer each batch that it is trained on."""
        return 0

    def model(self) -> Retriever:
        return load_retriever(self.done() / "retriever").to(DEVICE)

    def log(self) -> list[dict]:
        """One row of loss parts per step."""
        return json.loads((self.done() / "log.json").read_text())


@dataclass(frozen=True)
class Evaluate(Stage):
    """Search with a dual encoder, or re-rank the top of `first` with any retriever; write the result record."""

    kind = "evaluate"
    retriever: Trained | None  # None: BM25
    split: str
    depth: int
    first: "Evaluate | None" = None
    rerank: int = 0
    teacher: bool = (
        False  # evaluate the jointly trained teacher of a distillation instead of the student
    )

    def run(self) -> None:
        started = time.monotonic()
        texts = collection(self.data.collection)
        run = self._search()
        values = per_query(run, texts, self.split)
        ranking = {"rows": torch.from_numpy(run.rows).int(), "scores": torch.from_numpy(run.scores)}
        write_tensors(self.folder / "run.safetensors", ranking)
        write_json(
            self.folder / "record.json",
            {
                "stage": self.describe(),
                "key": self.key,
                "collection": texts.name,
                "fingerprint": texts.fingerprint,
                "split": self.split,
                "measures": {name: round(float(v.mean()), 6) for name, v in values.items()},
                "per_query": {name: [round(float(x), 6) for x in v] for name, v in values.items()},
                "training_seconds": self.retriever.seconds() if self.retriever else 0.0,
                "seconds": round(time.monotonic() - started, 1),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "device": device_name(),
                "versions": versions(),
            },
        )

    def _search(self) -> searching.Run:
        if self.retriever is None:
            return searching.bm25(collection(self.data.collection), self.split, self.depth)
        model = load_retriever(
            self.retriever.done() / ("teacher" if self.teacher else "retriever")
        ).to(DEVICE)
        queries, passages = (
            queries_of(model.tower, self.data, self.split),
            passages_of(model.tower, self.data),
        )
        if self.first:
            return searching.rerank(model, queries, passages, self.first.ranking(), self.rerank)
        if not isinstance(model, DualEncoder):
            raise ValueError(
                f"a {model.architecture} cannot search a collection: give `first`, the run whose top it re-ranks"
            )
        return searching.retrieve(model, queries, passages, self.depth)

    def ranking(self) -> searching.Run:
        tensors = read_tensors(self.done() / "run.safetensors")
        return searching.Run(tensors["rows"].numpy().astype(np.int64), tensors["scores"].numpy())

    def record(self) -> dict:
        return json.loads((self.done() / "record.json").read_text())

    def cost(self) -> dict[str, float]:
        """What the retriever's training took, that of every retriever it comes from included, each once. seconds: wall time, of the
        last run where one was interrupted; teacher_passes: batches that teachers, assistants and frozen copies answered."""
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
            "teacher_passes": sum(stage.teachers() * len(stage.log()) for stage in trained),
        }

    def values(self, measure: str = MEASURES[0]) -> np.ndarray:
        """(Q,): one measure for each query of the split."""
        return np.array(self.record()["per_query"][measure])


def processor() -> str:
    """The GPU, or what the CPU computes with: "AVX2", "AVX512 with BF16" or "AVX512 with AMX", for example."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    can = torch.cpu.get_capabilities()
    bf16 = " with AMX" if can.get("amx_bf16") else " with BF16" if can.get("avx512_bf16") else ""
    return torch.backends.cpu.get_cpu_capability() + bf16


def device_name() -> str:
    """The device that computes, in words."""
    return (
        processor()
        if torch.cuda.is_available()
        else f"CPU, {processor()}, {torch.get_num_threads()} threads"
    )


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
