"""Test collections: passages, queries and relevance judgements (qrels).

Three sources answer with the same type, `Collection`:

- `load("python-docs")`: the docstrings of the standard library and of the packages that this environment pins (python_docs.py);
  they are written to the cache in BEIR layout, so there is one reader.
- `load("beir:PATH")`: a folder in BEIR layout (corpus.jsonl[.gz], queries.jsonl[.gz], qrels/SPLIT.tsv).
- `load("irds:NAME")`: a collection of ir_datasets, MS MARCO for one (irds.py); its passages stay on disk (passages.py).
"""

import gzip
import hashlib
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from leadkit.data import python_docs
from leadkit.data.passages import Passages, check_id

LONGEST = 2**26  # characters of a line; a small .gz file may hold one that fills the memory
HIGHEST = 1000  # grade; trec_eval keeps a table of that length, and counts wrongly where it does not fit an int


@dataclass(frozen=True)
class Collection:
    """A retrieval test collection, in memory but for the passages of ir_datasets.

    passages: passage id -> text; queries: query id -> text; qrels: split -> query id -> passage id -> grade.
    relevant: split -> the lowest grade that binary measures count as relevant, where it is not 1.
    fingerprint: 16 hexadecimal digits over extractor, package versions and content; every result record carries it.
    """

    name: str
    fingerprint: str
    passages: Mapping[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, dict[str, int]]]
    relevant: dict[str, int] = field(default_factory=dict)

    @cached_property
    def passage_row(self) -> Mapping[str, int]:
        """passage id -> its row in the order of `passages`."""
        return (
            self.passages.rows
            if isinstance(self.passages, Passages)
            else {pid: row for row, pid in enumerate(self.passages)}
        )

    @cached_property
    def passage_ids(self) -> Sequence[str]:
        """Row -> passage id."""
        return (
            self.passages.rows.ids if isinstance(self.passages, Passages) else list(self.passages)
        )

    def split(self, name: str) -> dict[str, str]:
        """Query id -> text of one split, in the order of its qrels. ValueError for a split that does not exist."""
        if name not in self.qrels:
            raise ValueError(
                f"split {name!r} is not in collection {self.name!r}: choose one of {sorted(self.qrels)}"
            )
        return {qid: self.queries[qid] for qid in self.qrels[name]}


def load(name: str) -> Collection:
    """Load a collection by name: "python-docs", "python-docs:smoke" (a slice), "beir:PATH" or "irds:NAME".

    Raises ValueError for an unknown name, malformed content or a download that is not whole, FileNotFoundError for a missing file,
    OSError for a disk that is too small; all say which.
    """
    if name.startswith("beir:"):
        return read_beir(Path(os.path.expanduser(name.removeprefix("beir:"))), name)
    if name.startswith("irds:"):
        return read_irds(name)
    if name in python_docs.VARIANTS:
        return read_python_docs(python_docs.folder(name), name)
    known = ", ".join(repr(variant) for variant in python_docs.VARIANTS)
    raise ValueError(f"collection {name!r} is unknown: use {known}, 'beir:PATH' or 'irds:NAME'")


def _find(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"collection folder {folder} has no {stem}.jsonl or {stem}.jsonl.gz")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("PATH, line NUMBER", line) of the lines that are not blank; bytes that are not UTF-8 come as lone surrogates.

    ValueError for a line of LONGEST characters.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(
            path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=None
        ) as lines:
            for number, line in enumerate(iter(partial(lines.readline, LONGEST), ""), start=1):
                if len(line) == LONGEST:
                    raise ValueError(
                        f"{path}, line {number}: it has {LONGEST:,} characters or more; a line is one text"
                    )
                if line.strip():
                    yield f"{path}, line {number}", line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error})") from None


def _read_texts(folder: Path, stem: str) -> dict[str, str]:
    """id -> title and text of a jsonl file. ValueError names the file, the line and the field."""
    texts, path = {}, _find(folder, stem)
    for where, line in _lines(path):
        try:
            row = json.loads(line)
            key, title = row["_id"], row.get("title")
            text = " ".join(("" if title is None else title, row["text"])).strip()
            text.encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{where}: not a JSON object in UTF-8 with the string fields _id and text ({error!r:.200})"
            ) from None
        check_id(key, where)
        if not text:
            raise ValueError(f"{where}: {key!r} has an empty text")
        if key in texts:
            raise ValueError(f"{where}: _id {key!r} stands there a second time; ids must be unique")
        texts[key] = text
    if not texts:
        raise ValueError(f"{path} holds no line; at least one is needed")
    return texts


def _read_qrels(
    path: Path, passages: Mapping[str, str], queries: dict[str, str]
) -> dict[str, dict[str, int]]:
    """query id -> passage id -> grade of a tab-separated file. ValueError names the file, the line and the field."""
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for where, line in _lines(path):
        if where.endswith(", line 1") and line.lower().split()[:2] == ["query-id", "corpus-id"]:
            continue
        try:
            qid, pid, score = line.split("\t")
            grade = int(score.replace("_", "?"))  # int("1_0") is 10
        except ValueError:
            raise ValueError(
                f"{where}: {line[:80]!r} is not 'query-id TAB corpus-id TAB integer score'"
            ) from None
        if qid not in queries:
            raise ValueError(f"{where}: query-id {qid!r:.80} is not in queries.jsonl")
        if pid not in passages:
            raise ValueError(f"{where}: corpus-id {pid!r:.80} is not in corpus.jsonl")
        if abs(grade) > HIGHEST:
            raise ValueError(
                f"{where}: score {score.strip():.80} is not from -{HIGHEST:,} to {HIGHEST:,}"
            )
        if (before := qrels[qid].setdefault(pid, grade)) != grade:
            raise ValueError(
                f"{where}: query-id {qid!r} and corpus-id {pid!r} stand there a second time, with score {grade} after "
                f"{before}"
            )
    if not qrels:
        raise ValueError(f"{path} holds no judgement; at least one is needed")
    return dict(qrels)


def read_beir(folder: Path, name: str) -> Collection:
    """Read a folder in BEIR layout. Everything is checked before anything is returned."""
    if not folder.is_dir():
        raise FileNotFoundError(f"collection {name!r}: {folder} is not a folder")
    passages, queries = _read_texts(folder, "corpus"), _read_texts(folder, "queries")
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise FileNotFoundError(f"collection folder {folder} has no qrels/*.tsv")
    qrels = {path.stem: _read_qrels(path, passages, queries) for path in files}
    content = json.dumps([passages, queries, qrels], ensure_ascii=False, sort_keys=True).encode()
    return Collection(name, hashlib.sha256(content).hexdigest()[:16], passages, queries, qrels)


def read_python_docs(folder: Path, name: str) -> Collection:
    """Read a folder of python_docs. Its name hashes the extractor's version and the package versions: the fingerprint has them."""
    content = read_beir(folder, name)
    return replace(
        content,
        fingerprint=hashlib.sha256(f"{folder.name} {content.fingerprint}".encode()).hexdigest()[
            :16
        ],
    )


def read_irds(name: str) -> Collection:
    """Read a collection of ir_datasets, prepared on first use. The fingerprint is over its content."""
    from leadkit.data import (
        irds,
    )  # only when asked: ir_datasets makes folders as soon as it is imported

    source = irds.source(name.removeprefix("irds:"))
    folder, digests = irds.folder(name.removeprefix("irds:"))
    passages, queries = Passages(folder, digests["corpus.jsonl"]), _read_texts(folder, "queries")
    qrels = {
        split: _read_qrels(folder / "qrels" / f"{split}.tsv", passages, queries)
        for split in source.splits
    }
    content = json.dumps(
        {file: value for file, value in digests.items() if not file.endswith(".npy")},
        sort_keys=True,
    )
    return Collection(
        name,
        hashlib.sha256(content.encode()).hexdigest()[:16],
        passages,
        queries,
        qrels,
        source.relevant,
    )
