"""Test collections: passages, queries and relevance judgements (qrels).

Two sources answer with the same type, `Collection`:

- `load("python-docs")`: the docstrings of the standard library and of the packages that this environment pins. The first
  paragraph of a docstring is the query, the rest is its relevant passage. Parsed with `ast`, never imported.
- `load("beir:PATH")`: a folder in BEIR layout (corpus.jsonl[.gz], queries.jsonl[.gz], qrels/SPLIT.tsv).

python-docs is itself written to the cache in BEIR layout, so there is one reader. data/README.md explains every filter.
"""

import ast
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sysconfig
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datasketch import MinHash, MinHashLSH
from tqdm.auto import tqdm

EXTRACTOR = 1  # raise it when a change below changes the text
PACKAGES = ("accelerate", "huggingface-hub", "ipython", "jupyter-server", "matplotlib", "networkx", "numpy", "pandas",
            "pydantic", "safetensors", "scipy", "seaborn", "sympy", "tokenizers", "torch", "tornado", "tqdm", "transformers")
SLICE = ("networkx",)  # the packages of the slice "python-docs:smoke"
CACHE = Path(os.environ.get("LEADKIT_CACHE", Path(__file__).parent.parent / "data" / "cache"))
TEST, DEV = 2000, 1000  # queries
SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Collection:
    """A retrieval test collection, in memory.

    passages: passage id -> text; queries: query id -> text; qrels: split -> query id -> passage id -> grade.
    fingerprint: 16 hexadecimal digits over extractor, package versions and content; every result record carries it.
    """

    name: str
    fingerprint: str
    passages: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, dict[str, int]]]

    @cached_property
    def passage_row(self) -> dict[str, int]:
        """passage id -> its row in the order of `passages`."""
        return {pid: row for row, pid in enumerate(self.passages)}

    def split(self, name: str) -> dict[str, str]:
        """Query id -> text of one split, in the order of its qrels. ValueError for a split that does not exist."""
        if name not in self.qrels:
            raise ValueError(f"split {name!r} is not in collection {self.name!r}: choose one of {sorted(self.qrels)}")
        return {qid: self.queries[qid] for qid in self.qrels[name]}


def load(name: str) -> Collection:
    """Load a collection by name: "python-docs", "python-docs:smoke" (a slice) or "beir:PATH".

    Raises ValueError for an unknown name or malformed content, FileNotFoundError for a missing file; both say which.
    """
    if name.startswith("beir:"):
        return read_beir(Path(name.removeprefix("beir:")).expanduser(), name)
    if name == "python-docs":
        return _python_docs(name, PACKAGES, standard_library=True)
    if name == "python-docs:smoke":
        return _python_docs(name, SLICE, standard_library=False, test=100, dev=100)
    raise ValueError(f"collection {name!r} is unknown: use 'python-docs', 'python-docs:smoke' or 'beir:PATH'")


# --- BEIR folders -----------------------------------------------------------------------------------------------------


def _open(folder: Path, stem: str):
    for path, opener in ((folder / f"{stem}.jsonl", open), (folder / f"{stem}.jsonl.gz", gzip.open)):
        if path.is_file():
            return path, opener(path, "rt", encoding="utf-8-sig", newline=None)
    raise FileNotFoundError(f"collection folder {folder} has no {stem}.jsonl or {stem}.jsonl.gz")


def _read_texts(folder: Path, stem: str) -> dict[str, str]:
    """id -> title and text of a jsonl file. ValueError names the file, the line and the field."""
    texts = {}
    path, lines = _open(folder, stem)
    with lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                key, text = row["_id"], f"{row.get('title') or ''} {row['text']}".strip()
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{where}: not a JSON object with the string fields _id and text ({error!r})") from None
            if not isinstance(key, str) or not key or any(c.isspace() or not c.isprintable() for c in key):
                raise ValueError(f"{where}: _id {key!r} must be a non-empty string without white space")
            if not text:
                raise ValueError(f"{where}: {key!r} has an empty text")
            if key in texts:
                raise ValueError(f"{where}: _id {key!r} stands there a second time; ids must be unique")
            texts[key] = text
    if not texts:
        raise ValueError(f"{path} holds no line; at least one is needed")
    return texts


def _read_qrels(path: Path, passages: dict[str, str], queries: dict[str, str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if number == 1 and line.lower().startswith("query-id") or not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            qid, pid, grade = line.split("\t")
            grade = int(grade)
        except ValueError:
            raise ValueError(f"{where}: {line[:80]!r} is not 'query-id TAB corpus-id TAB integer score'") from None
        if qid not in queries:
            raise ValueError(f"{where}: query-id {qid!r} is not in queries.jsonl")
        if pid not in passages:
            raise ValueError(f"{where}: corpus-id {pid!r} is not in corpus.jsonl")
        qrels[qid][pid] = grade
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


# --- Python documentation ---------------------------------------------------------------------------------------------


def _sources(packages: tuple[str, ...], standard_library: bool) -> list[tuple[str, str]]:
    """(path, dotted module name) of every source file, sorted; tests and vendored copies left out."""
    files = []
    if standard_library:
        root = Path(sysconfig.get_paths()["stdlib"])
        files += [(path, path.relative_to(root)) for path in root.rglob("*.py")
                  if not {"site-packages", "dist-packages", "lib2to3"} & set(path.relative_to(root).parts)]
    for package in packages:
        distribution = importlib.metadata.distribution(package)
        files += [(Path(distribution.locate_file(f)), Path(str(f))) for f in distribution.files or () if f.suffix == ".py"]
    skip = re.compile(r"^(tests?|testing|idlelib|turtledemo|_?vendor(ed)?|_pyrepl|bin|.*\.data|\.\.)$|^(test_|conftest)")
    return sorted((str(path), ".".join(rel.with_suffix("").parts).removesuffix(".__init__"))
                  for path, rel in files if not any(skip.match(part) for part in rel.parts))


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a module, its classes and its functions, in the order of the file."""
    stack = [(tree, module)]
    while stack:
        node, name = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield name, text
        for child in reversed(list(ast.iter_child_nodes(node))):
            stack.append((child, f"{name}.{child.name}" if hasattr(child, "name") and child.name else name))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _pair(docstring: str) -> tuple[str, str] | str:
    """(query, passage) of one docstring, or the name of the filter that removes it."""
    docstring = docstring.encode("utf-8", "ignore").decode()  # a lone surrogate cannot be written to a file
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", docstring.strip()) if p.strip()]
    if paragraphs and SIGNATURE.match(paragraphs[0]):
        paragraphs = paragraphs[1:]
    if len(paragraphs) < 2:
        return "one paragraph"
    query, passage = paragraphs[0], " ".join(paragraphs[1:])
    if not 4 <= len(_words(query)) <= 40:
        return "query under 4 or over 40 words"
    if len(set(_words(passage))) < 12:
        return "passage under 12 different words"
    if " ".join(_words(query)) in " ".join(_words(passage)):
        return "query stands in its passage"
    return query, passage


def _shingles(passage: str) -> MinHash:
    """MinHash of the passage's 5-word shingles; two passages above Jaccard 0.7 count as one."""
    words = _words(passage)
    sketch = MinHash(num_perm=64, hashfunc=zlib.crc32)
    sketch.update_batch({" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))})
    return sketch


def _extract(files: list[tuple[str, str]]) -> tuple[list[tuple[str, str, str, MinHash]], Counter]:
    """(qualified name, query, passage, sketch) of the docstrings that pass the filters, and what was filtered."""
    kept, filtered = [], Counter()
    for path, module in files:
        try:
            tree = ast.parse(Path(path).read_bytes())
        except (SyntaxError, ValueError):
            filtered["file does not parse"] += 1
            continue
        for name, docstring in _docstrings(tree, module):
            pair = _pair(docstring)
            if isinstance(pair, str):
                filtered[pair] += 1
            else:
                kept.append((name, *pair, _shingles(pair[1])))
    return kept, filtered


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def build_python_docs(folder: Path, packages: tuple[str, ...], standard_library: bool, test: int, dev: int) -> None:
    """Extract, filter, merge, split, and write the folder in BEIR layout with `filters.json`, the count of each filter."""
    files = _sources(packages, standard_library)
    chunks = [files[i::64] for i in range(64)]
    kept, filtered = [], Counter()
    with ProcessPoolExecutor() as pool:
        for part, counts in tqdm(pool.map(_extract, chunks), total=len(chunks), desc="reading docstrings", unit="chunk"):
            kept += part
            filtered += counts
    # A name that is defined twice (a property and its setter) counts once; the shortest name represents its near-duplicates.
    kept.sort(key=lambda row: (len(row[0]), row[:3]))
    kept = list({row[0]: row for row in reversed(kept)}.values())[::-1]

    index, passages, representative = MinHashLSH(threshold=0.7, num_perm=64), {}, {}
    for name, _, passage, sketch in kept:
        twins = sorted(index.query(sketch), key=lambda key: (len(key), key))
        representative[name] = twins[0] if twins else name
        if twins:
            filtered["near-duplicate passage, merged"] += 1
        else:
            index.insert(name, sketch)
            passages[name] = passage

    relevant, text = defaultdict(set), {}
    for name, query, *_ in kept:
        key = " ".join(_words(query))
        relevant[key].add(representative[name])
        text.setdefault(key, (name, query))
    # Queries that share a passage share a split, so that no test passage is a training positive.
    group = {}

    def find(x: str) -> str:
        while group.setdefault(x, x) != x:
            x = group[x]
        return x

    for key in [key for key, ids in relevant.items() if len(ids) > 3]:
        filtered["query of more than 3 passages"] += 1
        del relevant[key]
    for ids in relevant.values():
        first, *others = sorted(ids)
        for other in others:
            group[find(other)] = find(first)
    groups = defaultdict(list)
    for key, ids in relevant.items():
        groups[find(min(ids))].append(key)

    splits: dict[str, list[str]] = {"test": [], "dev": [], "train": []}
    for root in sorted(groups, key=_hash):
        for name, size in (("test", test), ("dev", dev), ("train", len(text))):
            if len(splits[name]) < size:
                splits[name] += sorted(groups[root])
                break

    (folder / "qrels").mkdir(parents=True)
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as out:
        for pid in sorted(passages):
            out.write(json.dumps({"_id": pid, "text": passages[pid]}, ensure_ascii=False) + "\n")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as out:
        for key in sorted(relevant, key=lambda key: text[key][0]):
            out.write(json.dumps({"_id": text[key][0], "text": text[key][1]}, ensure_ascii=False) + "\n")
    for name, keys in splits.items():
        rows = sorted(f"{text[key][0]}\t{pid}\t1" for key in keys for pid in relevant[key])
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8")
    counts = {"files": len(files), "filtered": dict(sorted(filtered.items())), "passages": len(passages),
              "queries": {name: len(keys) for name, keys in splits.items()}}
    (folder / "filters.json").write_text(json.dumps(counts, indent=2) + "\n")


def _digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "cache.json"}


def _python_docs(name: str, packages: tuple[str, ...], standard_library: bool, test: int = TEST, dev: int = DEV) -> Collection:
    """The cached collection of these packages: built on first use, rebuilt where a file's digest does not hold."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    if standard_library:
        versions["python"] = platform.python_version()
    key = _hash(json.dumps([EXTRACTOR, versions, test, dev], sort_keys=True))[:16]
    folder = CACHE / f"{name.replace(':', '-')}-{key}"
    manifest = folder / "cache.json"
    try:
        intact = json.loads(manifest.read_text())["digests"] == _digests(folder)
    except (OSError, ValueError, KeyError):
        intact = False
    if not intact:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-") as temporary:
            built = Path(temporary) / "collection"
            build_python_docs(built, packages, standard_library, test, dev)
            (built / "cache.json").write_text(json.dumps(
                {"extractor": EXTRACTOR, "versions": versions, "digests": _digests(built)}, indent=2))
            shutil.rmtree(folder, ignore_errors=True)
            built.replace(folder)
    content = read_beir(folder, name)
    return Collection(name, _hash(key + content.fingerprint)[:16], content.passages, content.queries, content.qrels)
