"""Collections of ir_datasets (MS MARCO, TREC DL, Natural Questions, ...), written to the cache in BEIR layout.

ir_datasets downloads: it goes on where a connection broke, and compares checksums. Passages stream from there to corpus.jsonl, one
in memory at a time. What ir_datasets keeps may be deleted afterwards.
"""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import ir_datasets
from ir_datasets.indices import lz4_pickle
from tqdm.auto import tqdm

from leadkit.files import alone, digest, write_folder, write_json
from leadkit.data.passages import write_passages
from leadkit.data.python_docs import CACHE

LAYOUT = 1  # raise it when a change below changes what is written


class _Entries(pickle.Unpickler):
    """Reads the index that ir_datasets makes of documents: plain values and its own named tuples. Any other class is refused."""

    def find_class(self, module: str, name: str) -> type:
        found = (
            super().find_class(module, name)
            if module.startswith("ir_datasets.") and "." not in name
            else None
        )
        if not (isinstance(found, type) and issubclass(found, tuple)):
            raise pickle.UnpicklingError(
                f"an index of documents holds no {module}.{name}; this one is not ir_datasets' own"
            )
        return found


# Nothing gets in with what ir_datasets keeps: no code with an index, and no archive's member outside of its folder.
lz4_pickle.pickle = SimpleNamespace(
    dumps=pickle.dumps, loads=lambda content: _Entries(io.BytesIO(content)).load()
)
if hasattr(tarfile, "data_filter"):  # since Python 3.11.4
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)


@dataclass(frozen=True)
class Source:
    """Where ir_datasets has a collection, and what it needs.

    splits: split -> id of a data set; relevant: split -> the lowest grade that binary measures count, where it is not 1.
    download, text: GB of disk for what ir_datasets keeps, and for what is written here; None: not known.
    """

    splits: dict[str, str]
    relevant: dict[str, int] = field(default_factory=dict)
    download: float | None = None
    text: float | None = None


def _judged(name: str, dev: str) -> dict[str, str]:
    return {
        "train": f"{name}/train",
        "dev": f"{name}/{dev}",
        "dl19": f"{name}/trec-dl-2019/judged",
        "dl20": f"{name}/trec-dl-2020/judged",
    }


# download: the sizes in ir_datasets' downloads.json, and what it unpacks. text: the corpus (2.9 GB and 22 GB: guidelines of the
# TREC 2019 Deep Learning track; Natural Questions: 100 words a passage), ids, and 2 bytes a token for each of two tokenisers.
SOURCES = {
    # Grade 1 of TREC DL passages is "related, does not answer": binary measures start at 2 (track guidelines).
    "msmarco-passage": Source(
        _judged("msmarco-passage", "dev/small"), {"dl19": 2, "dl20": 2}, download=4.4, text=7
    ),
    "msmarco-document": Source(_judged("msmarco-document", "dev"), download=8.6, text=30),
    "dpr-w100/natural-questions": Source(
        {split: f"dpr-w100/natural-questions/{split}" for split in ("train", "dev")},
        download=7.6,
        text=28,
    ),
    "beir/nq": Source({"test": "beir/nq"}, download=2, text=3),
}


def source(name: str) -> Source:
    """The `Source` of a name: of the table, or what ir_datasets registers as NAME/train, NAME/dev and NAME/test, or as NAME.

    ValueError where ir_datasets has no such judgements.
    """
    if name in SOURCES:
        return SOURCES[name]
    known = set(ir_datasets.registry)
    splits = {
        split: f"{name}/{split}" for split in ("train", "dev", "test") if f"{name}/{split}" in known
    } or {"test": name}
    for dataset in splits.values():
        if dataset not in known or not all(
            ir_datasets.load(dataset).has(kind) for kind in ("docs", "queries", "qrels")
        ):
            raise ValueError(
                f"collection 'irds:{name}' is unknown: ir_datasets has no judged queries of that name; use "
                f"{', '.join(f'irds:{each}' for each in SOURCES)} or another name of ir-datasets.com"
            )
    return Source(splits)


def _home(name: str) -> Path:
    """Where ir_datasets keeps the files of a collection: one folder for MS MARCO's passages, one for each of BEIR's."""
    return ir_datasets.util.home_path() / (
        name if name.startswith("beir/") else name.partition("/")[0]
    )


def check_disk(name: str, needed: Source) -> None:
    """Say in one line what disk it takes. OSError where less is free; what is downloaded already counts."""
    home = _home(name)
    if needed.download is None or needed.text is None:
        print(
            f"irds:{name}: how much disk it takes is not known; downloads go to {home}, passages to {CACHE}",
            flush=True,
        )
        return
    here = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e9
    print(
        f"irds:{name} takes {needed.download + needed.text:.1f} GB of disk: {needed.download:.1f} GB of downloads in {home} "
        f"({here:.1f} GB are there), {needed.text:.1f} GB of passages and tokens in {CACHE}",
        flush=True,
    )
    root = ir_datasets.util.home_path()
    take = {root: max(0.0, needed.download - here), CACHE: needed.text}
    if os.stat(root).st_dev == os.stat(CACHE).st_dev:
        take = {CACHE: sum(take.values())}
    for path, gigabytes in take.items():
        if (free := shutil.disk_usage(path).free / 1e9) < gigabytes:
            raise OSError(
                f"collection 'irds:{name}' needs {gigabytes:.1f} GB at {path}, where {free:.1f} GB are free: make room, "
                "or set IR_DATASETS_HOME (downloads) or LEADKIT_CACHE (passages) to a folder on a larger disk"
            )


def _entries(name: str, dataset: str, kind: str) -> Iterator:
    """The docs, queries or qrels of a data set. ValueError where ir_datasets fails, or gives fewer than it knows there are."""
    data, found, home = ir_datasets.load(dataset), 0, _home(name)
    try:
        for entry in getattr(data, f"{kind}_iter")():
            found += 1
            yield entry
    except (
        Exception
    ) as error:  # the network, archives, parsers: ir_datasets passes on what each of them raises
        raise ValueError(
            f"collection 'irds:{name}': the {kind} of {dataset} could not be downloaded or read "
            f"({type(error).__name__}: {error}); load it again, whole files stay; if that fails too, delete what is "
            f"damaged in {home}"
        ) from error
    if found != (expected := data.metadata()[kind].get("count", found)):
        raise ValueError(
            f"collection 'irds:{name}': {dataset} has {found:,} {kind} where {expected:,} should be, so a file in "
            f"{home} is not whole: delete it and load the collection again"
        )


def build(name: str, needed: Source, folder: Path) -> None:
    """Write the folder in BEIR layout, judged queries only. Grade 0 is left out: all measures count it as they count no judgement.

    Where two splits have a query id for different queries, the later split's name is put before it.
    """
    (folder / "qrels").mkdir()
    dataset = next(iter(needed.splits.values()))
    total = ir_datasets.load(dataset).metadata()["docs"].get("count")
    with tqdm(
        _entries(name, dataset, "docs"),
        f"irds:{name}, writing passages",
        total,
        unit="passage",
        leave=False,
    ) as docs:
        write_passages(
            folder,
            ((doc.doc_id, doc.default_text().strip()) for doc in docs),
            f"collection 'irds:{name}'",
        )
    texts: dict[str, str] = {}
    for split, dataset in needed.splits.items():
        qrels = {
            (row.query_id, row.doc_id): row.relevance
            for row in _entries(name, dataset, "qrels")
            if row.relevance > 0
        }
        key = dict.fromkeys(qid for qid, _ in qrels)
        for query in _entries(name, dataset, "queries"):
            if query.query_id in key:
                text = query.default_text().strip()
                key[query.query_id] = (
                    query.query_id
                    if texts.get(query.query_id, text) == text
                    else f"{split}-{query.query_id}"
                )
                texts[key[query.query_id]] = text
        if None in key.values():
            lacking = next(qid for qid, known in key.items() if known is None)
            raise ValueError(
                f"collection 'irds:{name}': query {lacking!r} of {dataset} has judgements and no text"
            )
        with open(folder / "qrels" / f"{split}.tsv", "w", encoding="utf-8") as out:
            out.write("query-id\tcorpus-id\tscore\n")
            out.writelines(f"{key[qid]}\t{pid}\t{grade}\n" for (qid, pid), grade in qrels.items())
    with open(
        folder / "queries.jsonl", "w", encoding="utf-8", errors="surrogatepass"
    ) as out:  # the reader says what is wrong
        out.writelines(
            json.dumps({"_id": qid, "text": text}, ensure_ascii=False) + "\n"
            for qid, text in texts.items()
        )


def folder(name: str) -> tuple[Path, dict[str, str]]:
    """The cached folder of a collection, in BEIR layout, and the SHA-256 of each of its files.

    Built on first use, and again where a file is not what was written. A second process that asks for it waits for the first.
    """
    needed = source(name)
    target = CACHE / f"irds-{name.replace('/', '-')}"
    with alone(CACHE / f"{target.name}.lock", target):
        try:
            seal = json.loads((target / "cache.json").read_text())
            if seal["layout"] == LAYOUT and all(
                digest(target / file) == value for file, value in seal["digests"].items()
            ):
                return target, seal["digests"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        for left in (
            target,
            *CACHE.glob(f".{target.name}.*"),
        ):  # damaged, or what a killed process was writing
            shutil.rmtree(left, ignore_errors=True)
        check_disk(name, needed)
        write_folder(target, partial(build, name, needed))
        digests = {
            str(path.relative_to(target)): digest(path)
            for path in sorted(target.rglob("*"))
            if path.is_file()
        }
        write_json(
            target / "cache.json",
            {"layout": LAYOUT, "ir_datasets": ir_datasets.__version__, "digests": digests},
        )
    return target, digests
