"""The embedded collection: docstrings as queries and passages, the same on every Python.

The first paragraph of a docstring is the query, the rest is its relevant passage. data/README.md
explains the filters. The file is in data/python-docs, with the licences of its sources (NOTICE) and
the script that made it (build.py).

The file is JSON lines, compressed with xz: one header, then the passages, then the queries, both
in the order of their ids. A query's `group` names the queries that share a passage with it.
"""

import hashlib
import json
import lzma
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from leadkit import paths

FILE = "python-docs-2.jsonl.xz"
# SHA-256 of the text in it, not of the file: another xz may compress the same text otherwise.
DIGEST = "8f95d3bf1c662edadd29d4f25ea0cc0cd93ce835844103a8373eed007771fab8"
SALT = "second edition"  # another salt draws other splits


class Slice(NamedTuple):
    """The part of the file whose passage ids start with `prefix`, and queries for test and dev."""

    prefix: str
    test: int
    dev: int


SLICES = {
    "python-docs": Slice("", test=2000, dev=1000),
    "python-docs:smoke": Slice("networkx.", test=100, dev=100),
}


class Texts(NamedTuple):
    """passages, queries: id -> text; qrels: split -> query id -> passage id -> grade 1."""

    passages: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, dict[str, int]]]


def lines() -> list[str]:
    """The lines of the file; the first is the header.

    FileNotFoundError where there is no file, ValueError where its text is not the committed one.
    """
    path = paths.PYTHON_DOCS / FILE
    restore = f"{paths.restore('python-docs')} brings it back"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {restore}")
    try:
        text = lzma.decompress(path.read_bytes())
    except lzma.LZMAError as error:
        raise ValueError(f"{path} is damaged ({error}): {restore}") from None
    digest = hashlib.sha256(text).hexdigest()
    if digest != DIGEST:
        raise ValueError(
            f"{path} holds another text: its SHA-256 is {digest}, {DIGEST} is expected: {restore}"
        )
    return text.decode().rstrip("\n").split("\n")


def header() -> dict:
    """Counts of passages and queries, what each filter removed, the sources with their licences."""
    return json.loads(lines()[0])


def read(name: str) -> Texts:
    """One of the SLICES. Raises as `lines`."""
    part = SLICES[name]
    passages: dict[str, str] = {}
    queries: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    group: dict[str, str] = {}
    for row in map(json.loads, lines()[1:]):
        if "passage" in row:
            if row["passage"].startswith(part.prefix):
                passages[row["passage"]] = row["text"]
        elif all(passage.startswith(part.prefix) for passage in row["relevant"]):
            queries[row["query"]] = row["text"]
            judged[row["query"]] = dict.fromkeys(row["relevant"], 1)
            group[row["query"]] = row["group"]
    qrels = {
        split: {query: judged[query] for query in drawn}
        for split, drawn in draw(group, part).items()
    }
    return Texts(passages, queries, qrels)


def draw(group: Mapping[str, str], part: Slice) -> dict[str, list[str]]:
    """Split -> its queries, sorted. group: query -> group; a group is never divided.

    Groups come in the order of a salted hash: the first are test, the next dev, the rest train. So
    no relevant passage of a test query is a training positive.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for query, name in group.items():
        members[name].append(query)
    splits: dict[str, list[str]] = {"test": [], "dev": [], "train": []}
    for name in sorted(members, key=_salted):
        if len(splits["test"]) < part.test:
            split = "test"
        elif len(splits["dev"]) < part.dev:
            split = "dev"
        else:
            split = "train"
        splits[split] += members[name]
    return {split: sorted(queries) for split, queries in splits.items()}


def _salted(name: str) -> bytes:
    return hashlib.sha256(f"{SALT}\n{name}".encode()).digest()
