"""A toy data set of ir_datasets, in local files."""

from pathlib import Path

import ir_datasets
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
from ir_datasets.util import Download, LocalDownload, MetadataProvider
from ir_datasets.util.metadata import MetadataComponent

PASSAGES = {
    "10": "The first passage",
    "9": "A second one, naïve \N{SNOWMAN}\u2028 with \t signs",
    "D7": "",
    "80": "The last one",
}
QUERIES = {
    "train": {"1": " what is first ", "2": "never judged"},
    "dev": {"1": "another of this id"},
    "dl19": {"5": "graded"},
}
QRELS = {
    "train": {"1": {"10": 1}},
    "dev": {"1": {"80": 1}},
    "dl19": {"5": {"10": 1, "9": 2, "80": 3, "D7": 0}},
}
SPLITS = {split: f"toy-irds/{split}" for split in QRELS}


def lines(rows) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def write_toy(folder: Path, passages: dict[str, str]) -> None:
    """The files of MS MARCO: collection.tsv, without tabs in a text, queries.*.tsv and qrels.*."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "collection.tsv").write_text(
        lines((pid, text.replace("\t", " ")) for pid, text in passages.items())
    )
    for split, texts in QUERIES.items():
        (folder / f"queries.{split}.tsv").write_text(lines(texts.items()))
        judged = [
            (qid, 0, pid, grade) for qid, row in QRELS[split].items() for pid, grade in row.items()
        ]
        (folder / f"qrels.{split}").write_text(lines(judged))


def register(
    monkeypatch, folder: Path, counts: dict[str, dict] | None = None, docs: Download | None = None
) -> None:
    """Register the files with ir_datasets as its own are, with metadata of these counts."""
    provider = MetadataProvider(lambda: counts or {})
    docs = TsvDocs(docs or LocalDownload(folder / "collection.tsv"))
    for split, name in SPLITS.items():
        made = Dataset(
            docs,
            TsvQueries(LocalDownload(folder / f"queries.{split}.tsv")),
            TrecQrels(LocalDownload(folder / f"qrels.{split}"), {}),
        )
        monkeypatch.setitem(
            ir_datasets.registry._registered,
            name,
            Dataset(MetadataComponent(name, made, provider), made),
        )
