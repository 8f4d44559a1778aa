"""The collections of ir_datasets: their splits, the grades that count, and the disk they take."""

from dataclasses import dataclass, field

import ir_datasets


@dataclass(frozen=True)
class Source:
    """Where ir_datasets has a collection, and what it needs.

    splits: split -> id of a data set.
    relevant: split -> the lowest grade that binary measures count, where it is not 1.
    download: GB of disk for what ir_datasets keeps; None: not known.
    text: GB of disk for what is written here; None: not known.
    """

    splits: dict[str, str]
    relevant: dict[str, int] = field(default_factory=dict)
    download: float | None = None
    text: float | None = None


def _ms_marco(name: str, dev: str) -> dict[str, str]:
    return {
        "train": f"{name}/train",
        "dev": f"{name}/{dev}",
        "dl19": f"{name}/trec-dl-2019/judged",
        "dl20": f"{name}/trec-dl-2020/judged",
    }


# download: the sizes in ir_datasets' downloads.json, and of what it unpacks.
# text: the corpus, the ids, and 2 bytes a token for each of two tokenisers. Sizes of the corpora:
# 2.9 GB and 22 GB (guidelines of the TREC 2019 Deep Learning track); Natural Questions: 100 words
# a passage.
SOURCES = {
    "msmarco-passage": Source(
        _ms_marco("msmarco-passage", "dev/small"),
        # Grade 1 is "related, does not answer": binary measures start at 2 (track guidelines).
        relevant={"dl19": 2, "dl20": 2},
        download=4.4,
        text=7,
    ),
    "msmarco-document": Source(_ms_marco("msmarco-document", "dev"), download=8.6, text=30),
    "dpr-w100/natural-questions": Source(
        {
            "train": "dpr-w100/natural-questions/train",
            "dev": "dpr-w100/natural-questions/dev",
        },
        download=7.6,
        text=28,
    ),
    "beir/nq": Source({"test": "beir/nq"}, download=2, text=3),
}


def known_source(name: str) -> Source:
    """The `Source` of a name.

    A name that is not in `SOURCES` has the splits that ir_datasets registers as NAME/train,
    NAME/dev and NAME/test, or NAME alone as test. ValueError where ir_datasets has no such
    judgements.
    """
    if name in SOURCES:
        return SOURCES[name]
    registered = set(ir_datasets.registry)
    parts = {split: f"{name}/{split}" for split in ("train", "dev", "test")}
    splits = {split: dataset for split, dataset in parts.items() if dataset in registered}
    splits = splits or {"test": name}
    if not all(dataset in registered and _is_judged(dataset) for dataset in splits.values()):
        named = ", ".join(f"irds:{each}" for each in SOURCES)
        raise ValueError(
            f"collection 'irds:{name}' is unknown: ir_datasets has no judged queries of that "
            f"name; use {named} or another name of ir-datasets.com"
        )
    return Source(splits)


def _is_judged(dataset: str) -> bool:
    entries = ir_datasets.load(dataset)
    return all(entries.has(kind) for kind in ("docs", "queries", "qrels"))
