"""Collections of ir_datasets (MS MARCO, TREC DL, ...), written to the cache in BEIR layout.

ir_datasets downloads: it resumes a broken download and compares checksums. Passages stream from
there to corpus.jsonl, one in memory at a time. Afterwards the files of ir_datasets may be deleted.
"""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ir_datasets
from ir_datasets.indices import lz4_pickle
from tqdm.auto import tqdm

from leadkit import paths
from leadkit.data import beir
from leadkit.data.catalogue import Source, known_source
from leadkit.data.passages import write_passages
from leadkit.files import alone, digest, digests, write_folder, write_json

LAYOUT = 1  # raise it when a change below changes what is written


class _Entries(pickle.Unpickler):
    """Reads ir_datasets' index of documents: plain values and its own named tuples only."""

    def find_class(self, module: str, name: str) -> type:
        entry = None
        if module.startswith("ir_datasets.") and "." not in name:
            entry = super().find_class(module, name)
        if isinstance(entry, type) and issubclass(entry, tuple):
            return entry
        raise pickle.UnpicklingError(
            f"an index of documents holds no {module}.{name}; this one is not ir_datasets' own"
        )


# No code enters with an index of ir_datasets, and no archive writes outside of its folder.
lz4_pickle.pickle = SimpleNamespace(
    dumps=pickle.dumps, loads=lambda content: _Entries(io.BytesIO(content)).load()
)
if hasattr(tarfile, "data_filter"):  # since Python 3.11.4
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)


def _downloads(name: str) -> Path:
    """The folder of ir_datasets for a collection: one for all of MS MARCO's passages, for example.

    Each collection of BEIR has its own.
    """
    folder = name if name.startswith("beir/") else name.partition("/")[0]
    return ir_datasets.util.home_path() / folder


def check_disk(name: str, source: Source) -> None:
    """Say in one line what disk it takes. OSError where less is free.

    What is downloaded already counts as free.
    """
    downloads = _downloads(name)
    if source.download is None or source.text is None:
        print(
            f"irds:{name}: how much disk it takes is not known; downloads go to {downloads}, "
            f"passages to {paths.CACHE}",
            flush=True,
        )
        return
    files = [path for path in downloads.rglob("*") if path.is_file()]
    present = sum(path.stat().st_size for path in files) / 1e9
    print(
        f"irds:{name} takes {source.download + source.text:.1f} GB of disk: "
        f"{source.download:.1f} GB of downloads in {downloads} ({present:.1f} GB are there), "
        f"{source.text:.1f} GB of passages and tokens in {paths.CACHE}",
        flush=True,
    )
    home = ir_datasets.util.home_path()
    needed = {home: max(0.0, source.download - present), paths.CACHE: source.text}
    if os.stat(home).st_dev == os.stat(paths.CACHE).st_dev:
        needed = {paths.CACHE: sum(needed.values())}
    for folder, gigabytes in needed.items():
        free = shutil.disk_usage(folder).free / 1e9
        if free < gigabytes:
            raise OSError(
                f"collection 'irds:{name}' needs {gigabytes:.1f} GB at {folder}, where "
                f"{free:.1f} GB are free: make room, or set IR_DATASETS_HOME (downloads) or "
                "LEADKIT_CACHE (passages) to a folder on a larger disk"
            )


def _entries(name: str, dataset: str, kind: str) -> Iterator[Any]:
    """The docs, queries or qrels of a data set.

    ValueError where ir_datasets fails, or gives fewer than its metadata say.
    """
    data = ir_datasets.load(dataset)
    count = 0
    try:
        for entry in getattr(data, f"{kind}_iter")():
            count += 1
            yield entry
    except Exception as error:  # ir_datasets passes on what network, archives and parsers raise
        raise ValueError(
            f"collection 'irds:{name}': the {kind} of {dataset} could not be downloaded or read "
            f"({type(error).__name__}: {error}); load it again, whole files stay; if that fails "
            f"too, delete what is damaged in {_downloads(name)}"
        ) from error
    expected = data.metadata()[kind].get("count", count)
    if count != expected:
        raise ValueError(
            f"collection 'irds:{name}': {dataset} has {count:,} {kind} where {expected:,} should "
            f"be, so a file in {_downloads(name)} is not whole: delete it and load the collection "
            "again"
        )


def write_collection(name: str, source: Source, notes: Counter[str], folder: Path) -> None:
    """Write the folder in BEIR layout, with queries that have a relevant passage only.

    Grade 0 is left out: every measure counts it as it counts no judgement. Where two splits use
    one query id for different queries, the later split puts its name before it.

    notes: receives the counts of what is left out, as those of beir.py.
    """
    (folder / "qrels").mkdir()
    first = next(iter(source.splits.values()))
    _write_passages(name, first, notes, folder)
    texts: dict[str, str] = {}
    for split, dataset in source.splits.items():
        _write_split(name, split, dataset, texts, notes, folder)
    # What is not Unicode is written, and the reader says which line it is.
    with open(folder / "queries.jsonl", "w", encoding="utf-8", errors="surrogatepass") as out:
        for qid, text in texts.items():
            out.write(json.dumps({"_id": qid, "text": text}, ensure_ascii=False) + "\n")


def _write_passages(name: str, dataset: str, notes: Counter[str], folder: Path) -> None:
    def texts(docs: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for doc in docs:
            text = doc.default_text().strip()
            notes[beir.EMPTY_PASSAGES] += not text
            yield doc.doc_id, text

    total = ir_datasets.load(dataset).metadata()["docs"].get("count")
    docs = _entries(name, dataset, "docs")
    described = f"irds:{name}, writing passages"
    with tqdm(docs, described, total, unit="passage", leave=False) as bar:
        repeated = write_passages(folder, texts(bar), f"collection 'irds:{name}'")
    notes[beir.REPEATED] += repeated


def _write_split(
    name: str,
    split: str,
    dataset: str,
    texts: dict[str, str],
    notes: Counter[str],
    folder: Path,
) -> None:
    """Write the judgements of a split, and add the texts of its queries to `texts`."""
    grades: dict[tuple[str, str], int] = {}
    judged: set[str] = set()
    for row in _entries(name, dataset, "qrels"):
        judged.add(row.query_id)
        if row.relevance > 0:
            grades[row.query_id, row.doc_id] = row.relevance
    notes[beir.NOTHING_RELEVANT] += len(judged.difference(qid for qid, _ in grades))
    written_id: dict[str, str | None] = dict.fromkeys(qid for qid, _ in grades)
    for query in _entries(name, dataset, "queries"):
        qid = query.query_id
        if qid in written_id:
            text = query.default_text().strip()
            if not text:
                notes[beir.EMPTY_QUERIES] += 1
                continue
            is_other = texts.get(qid, text) != text
            unique = f"{split}-{qid}" if is_other else qid
            written_id[qid] = unique
            texts[unique] = text
    if not any(written_id.values()):
        raise ValueError(
            f"collection 'irds:{name}': no query of {dataset} has a text and a relevant passage"
        )
    with open(folder / "qrels" / f"{split}.tsv", "w", encoding="utf-8") as out:
        out.write("query-id\tcorpus-id\tscore\n")
        for (qid, pid), grade in grades.items():
            if written_id[qid] is None:
                notes[beir.MISSING_QUERIES] += 1
            else:
                out.write(f"{written_id[qid]}\t{pid}\t{grade}\n")


def cached_folder(name: str) -> tuple[Path, dict[str, str], Counter[str]]:
    """The cached folder of a collection, in BEIR layout, and the SHA-256 of each of its files.

    Beside them the counts of what was left out when it was written. Written on first use, and again
    where a file is not what was written. A second process that asks for it waits for the first.
    """
    source = known_source(name)
    folder = paths.CACHE / f"irds-{name.replace('/', '-')}"
    with alone(paths.CACHE / f"{folder.name}.lock", folder):
        seal = _seal(folder)
        if seal:
            return folder, seal["digests"], Counter(seal.get("notes", {}))
        shutil.rmtree(folder, ignore_errors=True)
        for unfinished in paths.CACHE.glob(f".{folder.name}.*"):  # of a killed process
            shutil.rmtree(unfinished, ignore_errors=True)
        check_disk(name, source)
        notes: Counter[str] = Counter()
        write_folder(folder, partial(write_collection, name, source, notes))
        written = digests(folder)
        seal = {"layout": LAYOUT, "ir_datasets": ir_datasets.__version__, "digests": written}
        write_json(folder / "cache.json", seal | {"notes": notes})
    return folder, written, notes


def _seal(folder: Path) -> dict | None:
    """The content of cache.json, where all its digests hold and the layout is today's."""
    try:
        seal = json.loads((folder / "cache.json").read_text())
        if seal["layout"] != LAYOUT:
            return None
        holds = (digest(folder / file) == value for file, value in seal["digests"].items())
        return seal if all(holds) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
