"""A made-up collection of ir_datasets, from the first passage to training batches.

Time, and memory per passage. Each phase is a process of its own, at two sizes: the memory of a
passage is what grows between them.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ir_datasets
import records
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import (
    BaseDocs,
    BaseQrels,
    BaseQueries,
    GenericDoc,
    GenericQrel,
    GenericQuery,
)
from measuring import in_own_process, peak_mib

from leadkit.data import catalogue
from leadkit.data.collections import load
from leadkit.data.sampling import Batches, Sampler, groups
from leadkit.data.tokens import tokenise
from leadkit.models.tokenizers import load_tokenizer

PASSAGES = 1_000_000
MS_MARCO = 8_841_823  # passages
TOKENS = 80  # of an MS MARCO passage of about 56 words, assumed
STEPS = 200
WORDS = (
    "the of and to in is that for it was on as with be by are this from at or an have not which "
    "number people water"
).split()


class MadeUp:
    """Passages that are made as they are read. One of 17 has a query, as in MS MARCO."""

    def __init__(self, count: int):
        self.count = count

    def docs_iter(self) -> Iterator[GenericDoc]:
        draw = random.Random(0)
        for i in range(self.count):
            yield GenericDoc(str(i), f"{i} " + " ".join(draw.choices(WORDS, k=16)))

    def queries_iter(self) -> Iterator[GenericQuery]:
        return (GenericQuery(str(i), f"query {i}") for i in range(0, self.count, 17))

    def qrels_iter(self) -> Iterator[GenericQrel]:
        return (GenericQrel(str(i), str(i), 1) for i in range(0, self.count, 17))


class Docs(MadeUp, BaseDocs):
    pass


class Queries(MadeUp, BaseQueries):
    pass


class Qrels(MadeUp, BaseQrels):
    pass


def register(count: int) -> None:
    """Make irds:made-up a collection of so many passages."""
    made_up = Dataset(Docs(count), Queries(count), Qrels(count))
    ir_datasets.registry.register("made-up/train", made_up)
    gigabytes = count * 300 / 1e9
    catalogue.SOURCES["made-up"] = catalogue.Source(
        {"train": "made-up/train"}, download=0, text=gigabytes
    )


def measure(phase: str, count: int) -> dict:
    """Seconds and peak memory of a phase, "prepare" or "train", in this process."""
    register(count)
    started = time.perf_counter()
    tokenizer = load_tokenizer("bert-6x128")
    collection = load("irds:made-up")
    loaded = time.perf_counter()
    passages = tokenise(collection.passages, tokenizer, 144)
    tokenised = time.perf_counter()
    measured = {"loading": loaded - started, "tokenising": tokenised - loaded, "mapped": 0}
    if phase == "train":
        queries = tokenise(collection.split("train"), tokenizer, 32)
        sampler = Sampler(groups(collection, "train"), len(passages), 64, 8, 0)
        batches = Batches(sampler, queries, passages)
        for step in range(STEPS):
            batches(step)
        measured["batches"] = time.perf_counter() - tokenised
        measured["mapped"] = passages.flat.nbytes
        passages.flat.max()  # look at all of it, as a long training does
    return measured | {"bytes": int(peak_mib() * 2**20)}


def run(phase: str, count: int, folder: Path) -> dict:
    """`measure` in a process and with a cache of its own."""
    return in_own_process(
        phase,
        str(count),
        LEADKIT_CACHE=str(folder / str(count)),
        IR_DATASETS_HOME=str(folder / "home"),
        TOKENIZERS_PARALLELISM="false",
    )


def compare(phase: str, folder: Path) -> dict:
    """A phase at two sizes, the memory of a passage, and that of MS MARCO's passages."""
    few = PASSAGES // 10
    small = run(phase, few, folder)
    large = run(phase, PASSAGES, folder)
    grown = large["bytes"] - small["bytes"]
    mapped = large["mapped"] - small["mapped"]
    each = (grown - mapped) / (PASSAGES - few)  # bytes of a passage, without its tokens
    base = small["bytes"] - small["mapped"] - each * few
    whole = base + MS_MARCO * (each + (2 * TOKENS if mapped else 0))
    print(
        f"{phase}: {PASSAGES:,} passages, peak memory {large['bytes'] / 2**20:,.0f} MiB "
        f"({large['mapped'] / 2**20:,.0f} of them mapped tokens): {base / 2**20:,.0f} MiB and "
        f"{each:.0f} bytes a passage; MS MARCO's {MS_MARCO:,} passages: {whole / 2**30:.2f} GiB"
    )
    return {"small": small, "large": large, "bytes a passage": each, "bytes for MS MARCO": whole}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measured = {phase: compare(phase, Path(folder)) for phase in ("prepare", "train")}
    prepare, train = (measured[phase]["large"] for phase in ("prepare", "train"))
    print(
        f"prepare: written at {PASSAGES / prepare['loading']:,.0f}, tokenised at "
        f"{PASSAGES / prepare['tokenising']:,.0f} passages a second"
    )
    print(
        f"train, from the cache: loaded in {train['loading']:.1f} s, tokens mapped in "
        f"{train['tokenising']:.1f} s, {STEPS} batches of 64 x 8 in {train['batches']:.1f} s, "
        "grouping included"
    )
    records.write(measured)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
