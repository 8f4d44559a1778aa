"""A made-up collection of ir_datasets, from the first passage to training batches: time, and memory per passage.

Each phase is a process of its own, at two sizes: what grows between them is the memory of a passage.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

import records

PASSAGES, MS_MARCO = 1_000_000, 8_841_823
TOKENS = 80  # of an MS MARCO passage of about 56 words, assumed
WORDS = "the of and to in is that for it was on as with be by are this from at or an have not which number people water".split()


def register(count: int) -> None:
    """A data set of ir_datasets whose passages are made as they are read; one of 17 has a query, as in MS MARCO."""
    import ir_datasets
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.formats import (
        BaseDocs,
        BaseQrels,
        BaseQueries,
        GenericDoc,
        GenericQrel,
        GenericQuery,
    )

    from leadkit.data import catalogue

    class Docs(BaseDocs):
        def docs_iter(self):
            draw = random.Random(0)
            return (
                GenericDoc(str(i), f"{i} " + " ".join(draw.choices(WORDS, k=16)))
                for i in range(count)
            )

    class Queries(BaseQueries):
        def queries_iter(self):
            return (GenericQuery(str(i), f"query {i}") for i in range(0, count, 17))

    class Qrels(BaseQrels):
        def qrels_iter(self):
            return (GenericQrel(str(i), str(i), 1) for i in range(0, count, 17))

    ir_datasets.registry.register("made-up/train", Dataset(Docs(), Queries(), Qrels()))
    catalogue.SOURCES["made-up"] = catalogue.Source(
        {"train": "made-up/train"}, download=0, text=count * 300 / 1e9
    )


def measure(phase: str, count: int) -> dict:
    """Seconds and peak memory of a phase, in this process."""
    from leadkit.data.sampling import Batches, Sampler, groups, tokenise
    from leadkit.data.collections import load
    from leadkit.models.encoders import load_tokenizer

    register(count)
    started = time.perf_counter()
    tokenizer, collection = load_tokenizer("bert-6x128"), load("irds:made-up")
    loaded = time.perf_counter()
    tokens = tokenise(collection.passages, tokenizer, 144)
    found = {"loading": loaded - started, "tokenising": time.perf_counter() - loaded, "mapped": 0}
    if phase == "train":
        started = time.perf_counter()
        queries = tokenise(collection.split("train"), tokenizer, 32)
        at = Batches(Sampler(groups(collection, "train"), len(tokens), 64, 8, 0), queries, tokens)
        for step in range(200):
            at(step)
        found |= {"batches": time.perf_counter() - started, "mapped": tokens.flat.nbytes}
        tokens.flat.max()  # as a long training does, look at all of it
    return found | {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def run(phase: str, count: int, folder: str) -> dict:
    """`measure`, in a process and with a cache of its own."""
    places = {
        "LEADKIT_CACHE": f"{folder}/{count}",
        "IR_DATASETS_HOME": f"{folder}/home",
        "TOKENIZERS_PARALLELISM": "false",
    }
    printed = subprocess.check_output(
        [sys.executable, __file__, phase, str(count)], env=os.environ | places, text=True
    )
    return json.loads(printed.splitlines()[-1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for phase in ("prepare", "train"):
                small, large = (run(phase, count, folder) for count in (PASSAGES // 10, PASSAGES))
                grown, mapped = (large[key] - small[key] for key in ("bytes", "mapped"))
                each = (grown - mapped) / (0.9 * PASSAGES)  # bytes a passage, tokens aside
                base = small["bytes"] - small["mapped"] - each * PASSAGES / 10
                whole = base + MS_MARCO * (each + (2 * TOKENS if mapped else 0))
                found[phase] = {
                    "small": small,
                    "large": large,
                    "bytes a passage": each,
                    "bytes for MS MARCO": whole,
                }
                print(
                    f"{phase}: {PASSAGES:,} passages, peak memory {large['bytes'] / 2**20:,.0f} MiB "
                    f"({large['mapped'] / 2**20:,.0f} of them mapped tokens): {base / 2**20:,.0f} MiB and {each:.0f} bytes a "
                    f"passage; MS MARCO's {MS_MARCO:,} passages: {whole / 2**30:.2f} GiB"
                )
                if phase == "prepare":
                    print(
                        f"  written at {PASSAGES / large['loading']:,.0f}, tokenised at {PASSAGES / large['tokenising']:,.0f} "
                        "passages a second"
                    )
                else:
                    print(
                        f"  from the cache: loaded in {large['loading']:.1f} s, tokens mapped in {large['tokenising']:.1f} s, "
                        f"200 batches of 64 x 8 in {large['batches']:.1f} s, grouping included"
                    )
        records.write(found)
