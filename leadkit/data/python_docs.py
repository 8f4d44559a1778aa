"""The embedded collection: docstrings of the standard library and of installed packages."""

import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from datasketch import MinHashLSH
from scipy.cluster.hierarchy import DisjointSet

from leadkit import paths
from leadkit.data.docstrings import PERMUTATIONS, Docstring, extract_all, words
from leadkit.files import alone, digests, write_folder

EXTRACTOR = 1  # raise it when a change here or in docstrings.py changes the text
ALIKE = 0.7  # two passages of a higher Jaccard similarity count as one
NO_SOURCES = re.compile(
    r"^(tests?|testing|idlelib|turtledemo|_?vendor(ed)?|_pyrepl|bin|.*\.data|\.\.)$"
    r"|^(test_|conftest)"
)


@dataclass(frozen=True)
class Variant:
    """What is read, and how many of its queries are for test and dev."""

    packages: tuple[str, ...]
    standard_library: bool
    test: int
    dev: int


PACKAGES = tuple(
    "accelerate huggingface-hub ipython jupyter-server matplotlib networkx numpy pandas pydantic "
    "safetensors scipy seaborn sympy tokenizers torch tornado tqdm transformers".split()
)
VARIANTS = {
    "python-docs": Variant(PACKAGES, standard_library=True, test=2000, dev=1000),
    "python-docs:smoke": Variant(("networkx",), standard_library=False, test=100, dev=100),
}


def _sources(variant: Variant) -> list[tuple[str, str]]:
    """(path, dotted module name) of every source file, sorted; no tests, no vendored copies."""
    files: list[tuple[Path, Path]] = []
    if variant.standard_library:
        root = Path(sysconfig.get_paths()["stdlib"])
        for path in root.rglob("*.py"):
            relative = path.relative_to(root)
            if not {"site-packages", "dist-packages", "lib2to3"} & set(relative.parts):
                files.append((path, relative))
    for package in variant.packages:
        for file in importlib.metadata.files(package) or ():
            if file.suffix == ".py":
                files.append((Path(str(file.locate())), Path(str(file))))
    return sorted(
        (str(path), ".".join(relative.with_suffix("").parts).removesuffix(".__init__"))
        for path, relative in files
        if not any(NO_SOURCES.match(part) for part in relative.parts)
    )


def _unique(docstrings: Iterable[Docstring]) -> list[Docstring]:
    """One docstring for each name (a property and its setter share one), shortest name first."""
    ordered = sorted(docstrings, key=lambda d: (len(d.name), d.name, d.query, d.passage))
    by_name: dict[str, Docstring] = {}
    for docstring in ordered:
        by_name.setdefault(docstring.name, docstring)
    return list(by_name.values())


def _merge(docstrings: list[Docstring]) -> dict[str, str]:
    """Name -> the shortest name among those whose passages are nearly the same."""
    index = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS)
    representative: dict[str, str] = {}
    for docstring in docstrings:
        name = docstring.name
        twins = sorted(index.query(docstring.sketch), key=lambda twin: (len(twin), twin))
        representative[name] = twins[0] if twins else name
        if not twins:
            index.insert(name, docstring.sketch)
    return representative


def _groups(relevant: dict[str, set[str]]) -> list[list[str]]:
    """Queries in groups that share no passage, in an order that is random and always the same.

    relevant: query -> passage ids. The order is that of the hash of a group's name: of the passage
    that is first in the query that joined it last. Another rule would change the splits.
    """
    sets = DisjointSet(passage for ids in relevant.values() for passage in ids)
    names = {passage: passage for passage in sets}
    for ids in relevant.values():
        first, *others = sorted(ids)
        name = names[sets[first]]
        for other in others:
            sets.merge(first, other)
        names[sets[first]] = name
    groups: dict[str, list[str]] = defaultdict(list)
    for query, ids in relevant.items():
        groups[names[sets[min(ids)]]].append(query)
    return [groups[name] for name in sorted(groups, key=_hash)]


def _split(groups: list[list[str]], variant: Variant) -> dict[str, list[str]]:
    """Split -> its queries: whole groups, so that no test passage is a training positive."""
    splits: dict[str, list[str]] = {"test": [], "dev": [], "train": []}
    for group in groups:
        if len(splits["test"]) < variant.test:
            split = "test"
        elif len(splits["dev"]) < variant.dev:
            split = "dev"
        else:
            split = "train"
        splits[split] += sorted(group)
    return splits


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_collection(variant: Variant, folder: Path) -> None:
    """Extract, filter, merge and split; write a folder in BEIR layout.

    It also holds `filters.json`, what each filter removed.
    """
    files = _sources(variant)
    kept, filtered = extract_all(files)
    docstrings = _unique(kept)
    representative = _merge(docstrings)
    passages = {d.name: d.passage for d in docstrings if representative[d.name] == d.name}
    merged = len(docstrings) - len(passages)
    if merged:
        filtered["near-duplicate passage, merged"] = merged

    relevant: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Docstring] = {}
    for docstring in docstrings:
        key = " ".join(words(docstring.query))
        relevant[key].add(representative[docstring.name])
        first.setdefault(key, docstring)
    for key in [key for key, ids in relevant.items() if len(ids) > 3]:
        filtered["query of more than 3 passages"] += 1
        del relevant[key]
    splits = _split(_groups(relevant), variant)

    texts = {first[key].name: first[key].query for key in relevant}
    (folder / "qrels").mkdir(parents=True)
    _write_texts(folder / "corpus.jsonl", passages)
    _write_texts(folder / "queries.jsonl", texts)
    for split, keys in splits.items():
        rows = sorted(f"{first[key].name}\t{pid}\t1" for key in keys for pid in relevant[key])
        lines = ["query-id\tcorpus-id\tscore", *rows]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts = {
        "files": len(files),
        "filtered": dict(sorted(filtered.items())),
        "passages": len(passages),
        "queries": {split: len(keys) for split, keys in splits.items()},
    }
    (folder / "filters.json").write_text(json.dumps(counts, indent=2) + "\n")


def _write_texts(path: Path, texts: dict[str, str]) -> None:
    with open(path, "w", encoding="utf-8") as out:
        for key in sorted(texts):
            line = json.dumps({"_id": key, "text": texts[key]}, ensure_ascii=False)
            out.write(line + "\n")


def _versions(name: str) -> dict[str, str]:
    """The version of everything that a variant reads. ValueError where packages are missing."""
    versions = {}
    missing = []
    for package in VARIANTS[name].packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise ValueError(
            f"collection {name!r} is the text of installed packages, and this environment lacks "
            f"{', '.join(missing)}: in {paths.ROOT}: {sys.executable} -m pip install -e "
            '".[lessons]" -c constraints.txt'
        )
    if VARIANTS[name].standard_library:
        versions["python"] = platform.python_version()
    return versions


def location(name: str) -> Path:
    """The folder of a variant's text in this environment, whether it is there or not.

    ValueError where packages are missing.
    """
    identity = [EXTRACTOR, _versions(name), astuple(VARIANTS[name])]
    key = _hash(json.dumps(identity, sort_keys=True))[:16]
    return paths.CACHE / f"{name.replace(':', '-')}-{key}"


def cached_folder(name: str) -> Path:
    """The cached folder of a variant, in BEIR layout.

    Written on first use, and again where a file is not what was written.
    """
    folder = location(name)

    def save(built: Path) -> None:
        write_collection(VARIANTS[name], built)
        seal = {"extractor": EXTRACTOR, "versions": _versions(name), "digests": digests(built)}
        (built / "cache.json").write_text(json.dumps(seal, indent=2))

    with alone(paths.CACHE / f".{folder.name}.lock", folder):
        if not _is_sealed(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for unfinished in paths.CACHE.glob(f".{folder.name}.*"):  # of a killed process
                shutil.rmtree(unfinished, ignore_errors=True)  # the lock, a file, stays
            write_folder(folder, save)
    return folder


def _is_sealed(folder: Path) -> bool:
    """Whether the files are exactly those that were written."""
    try:
        seal = json.loads((folder / "cache.json").read_text())
        return seal["digests"] == digests(folder, "cache.json")
    except (OSError, ValueError, KeyError, TypeError):
        return False
