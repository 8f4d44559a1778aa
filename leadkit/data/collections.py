"""Test collections: passages, queries and relevance judgements (qrels).

Three kinds answer with one type, `Collection`:

- `load("python-docs")`: docstrings of the standard library and of packages (python_docs.py);
- `load("beir:PATH")`: a folder in BEIR layout (beir.py);
- `load("irds:NAME")`: a collection of ir_datasets, for example MS MARCO (irds.py). Its passages
  stay on disk (passages.py).

The last are written to the cache in BEIR layout.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from leadkit import processes
from leadkit.data import python_docs
from leadkit.data.beir import judgement_files, read_qrels, read_texts
from leadkit.data.passages import Passages

ENOUGH = 1000  # queries with the id, not the text, of a passage: then ids say nothing


@dataclass(frozen=True)
class Collection:
    """A retrieval test collection, in memory but for the passages of ir_datasets.

    passages: passage id -> text.
    queries: query id -> text.
    qrels: split -> query id -> passage id -> grade.
    relevant: split -> the lowest grade that binary measures count, where it is not 1.
    fingerprint: 16 hexadecimal digits over the content; every result record carries it.
    """

    name: str
    fingerprint: str
    passages: Mapping[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, dict[str, int]]]
    relevant: dict[str, int] = field(default_factory=dict)

    @cached_property
    def passage_row(self) -> Mapping[str, int]:
        """Passage id -> its row in the order of `passages`."""
        if isinstance(self.passages, Passages):
            return self.passages.rows
        return {pid: row for row, pid in enumerate(self.passages)}

    @cached_property
    def passage_ids(self) -> Sequence[str]:
        """Row -> passage id."""
        if isinstance(self.passages, Passages):
            return cast(Sequence[str], self.passages.rows.ids)  # an array, indexed as one
        return list(self.passages)

    def own_rows(self, split: str) -> np.ndarray:
        """(Q,): the row of the passage that is the query itself, -1 where there is none.

        That is a passage with the query's id and text which is not judged relevant to it, as in
        ArguAna and Quora. A query is never its own candidate.
        """
        queries = self.split(split)
        own = np.full(len(queries), -1)  # (Q,)
        same_id = 0
        for i, (qid, text) in enumerate(queries.items()):
            if qid in self.passage_row and self.qrels[split][qid].get(qid, 0) <= 0:
                same_id += 1
                if _words(self.passages[qid]).endswith(_words(text)):
                    own[i] = self.passage_row[qid]
            if same_id == ENOUGH and (own < 0).all():
                return own  # numbers that mean something else
        count = int((own >= 0).sum())
        if count:
            processes.tell(
                f"collection {self.name!r}, split {split!r}: {count:,} of {len(own):,} queries are "
                "passages themselves; a query is never its own candidate"
            )
        return own

    def split(self, name: str) -> dict[str, str]:
        """Query id -> text of one split, in the order of its qrels.

        ValueError for a split that does not exist.
        """
        if name not in self.qrels:
            raise ValueError(
                f"split {name!r} is not in collection {self.name!r}: choose one of "
                f"{sorted(self.qrels)}"
            )
        return {qid: self.queries[qid] for qid in self.qrels[name]}


def _words(text: str) -> str:
    return " ".join(text.split())


def load(name: str, strict: bool = False) -> Collection:
    """A collection by its name: "python-docs", "python-docs:smoke", "beir:PATH" or "irds:NAME".

    Rows that cannot be used, for example judgements of a query that is missing, are counted, and
    said in one line. strict: they are refused instead, by ValueError.

    Raises ValueError for an unknown name, malformed content or an incomplete download,
    FileNotFoundError for a missing file, and OSError for a disk that is too small.
    """
    if name.startswith("beir:"):
        return read_beir(Path(os.path.expanduser(name.removeprefix("beir:"))), name, strict)
    if name.startswith("irds:"):
        return read_irds(name, strict)
    if name in python_docs.SLICES:
        return _in_memory(name, *python_docs.read(name))
    known = ", ".join(map(repr, python_docs.SLICES))
    raise ValueError(f"collection {name!r} is unknown: use {known}, 'beir:PATH' or 'irds:NAME'")


def read_beir(folder: Path, name: str, strict: bool = False) -> Collection:
    """Read a folder in BEIR layout. Everything is checked before anything is returned."""
    if not folder.is_dir():
        raise FileNotFoundError(f"collection {name!r}: {folder} is not a folder")
    notes: Counter[str] = Counter()
    passages = read_texts(folder, "corpus", notes)
    queries = read_texts(folder, "queries", notes)
    files = judgement_files(folder)
    qrels = {split: read_qrels(path, passages, queries, notes) for split, path in files.items()}
    _say(name, notes, strict)
    return _in_memory(name, passages, queries, qrels)


def read_irds(name: str, strict: bool = False) -> Collection:
    """Read a collection of ir_datasets, prepared on first use; its content has the fingerprint."""
    from leadkit.data import catalogue, irds  # importing ir_datasets makes folders: only when asked

    source = catalogue.known_source(name.removeprefix("irds:"))
    folder, digests, notes = irds.cached_folder(name.removeprefix("irds:"))
    passages = Passages(folder, digests["corpus.jsonl"])
    queries = read_texts(folder, "queries", notes)
    qrels = {
        split: read_qrels(folder / "qrels" / f"{split}.tsv", passages, queries, notes)
        for split in source.splits
    }
    _say(name, notes, strict)
    texts = {file: value for file, value in digests.items() if not file.endswith(".npy")}
    fingerprint = _fingerprint(json.dumps(texts, sort_keys=True))
    return Collection(name, fingerprint, passages, queries, qrels, source.relevant)


def _say(name: str, notes: Counter[str], strict: bool) -> None:
    """One line about the rows that are not as they should be; ValueError if `strict`."""
    said = "; ".join(f"{count:,} {what}" for what, count in notes.items() if count)
    if said and strict:
        raise ValueError(f"collection {name!r} has {said}: strict reading refuses it")
    if said:
        processes.tell(f"collection {name!r}: {said}")


def _in_memory(
    name: str,
    passages: dict[str, str],
    queries: dict[str, str],
    qrels: dict[str, dict[str, dict[str, int]]],
) -> Collection:
    """A collection whose fingerprint is that of its whole content."""
    content = json.dumps([passages, queries, qrels], ensure_ascii=False, sort_keys=True)
    return Collection(name, _fingerprint(content), passages, queries, qrels)


def _fingerprint(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
