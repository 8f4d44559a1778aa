"""The embedded collection: docstrings as queries and passages.

The first paragraph of a docstring is the query, the rest is its relevant passage. Parsed with `ast`, never imported.
data/README.md explains every filter and gives its count.
"""

import ast
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import shutil
import sysconfig
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

from datasketch import MinHash, MinHashLSH
from tqdm.auto import tqdm

from leadkit.files import alone, digest, write_folder

EXTRACTOR = 1  # raise it when a change below changes the text
CACHE = Path(os.environ.get("LEADKIT_CACHE", Path(__file__).parent.parent / "data" / "cache"))
SIGNATURE = re.compile(r"^[\w.]+\(.*\)(\s*->.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Variant:
    """What is read, and how many queries of it are for test and dev."""

    packages: tuple[str, ...]
    standard_library: bool
    test: int
    dev: int


VARIANTS = {
    "python-docs": Variant(
        (
            "accelerate",
            "huggingface-hub",
            "ipython",
            "jupyter-server",
            "matplotlib",
            "networkx",
            "numpy",
            "pandas",
            "pydantic",
            "safetensors",
            "scipy",
            "seaborn",
            "sympy",
            "tokenizers",
            "torch",
            "tornado",
            "tqdm",
            "transformers",
        ),
        standard_library=True,
        test=2000,
        dev=1000,
    ),
    "python-docs:smoke": Variant(("networkx",), standard_library=False, test=100, dev=100),
}


def _sources(variant: Variant) -> list[tuple[str, str]]:
    """(path, dotted module name) of every source file, sorted; tests and vendored copies left out."""
    files = []
    if variant.standard_library:
        root = Path(sysconfig.get_paths()["stdlib"])
        files += [
            (path, path.relative_to(root))
            for path in root.rglob("*.py")
            if not {"site-packages", "dist-packages", "lib2to3"} & set(path.relative_to(root).parts)
        ]
    for package in variant.packages:
        distribution = importlib.metadata.distribution(package)
        files += [
            (Path(distribution.locate_file(f)), Path(str(f)))
            for f in distribution.files or ()
            if f.suffix == ".py"
        ]
    skip = re.compile(
        r"^(tests?|testing|idlelib|turtledemo|_?vendor(ed)?|_pyrepl|bin|.*\.data|\.\.)$|^(test_|conftest)"
    )
    return sorted(
        (str(path), ".".join(rel.with_suffix("").parts).removesuffix(".__init__"))
        for path, rel in files
        if not any(skip.match(part) for part in rel.parts)
    )


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a module, its classes and its functions, in the order of the file."""
    stack = [(tree, module)]
    while stack:
        node, name = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield name, text
        for child in reversed(list(ast.iter_child_nodes(node))):
            stack.append(
                (child, f"{name}.{child.name}" if hasattr(child, "name") and child.name else name)
            )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _pair(docstring: str) -> tuple[str, str] | str:
    """(query, passage) of one docstring, or the name of the filter that removes it."""
    docstring = docstring.encode(
        "utf-8", "ignore"
    ).decode()  # a lone surrogate cannot be written to a file
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
    sketch.update_batch(
        {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}
    )
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


def _end_with_parent() -> None:
    """In a worker: a thread that waits for the end of the process that started it, which may be killed and not say so."""
    threading.Thread(
        target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True
    ).start()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def build(variant: Variant, folder: Path) -> None:
    """Extract, filter, merge, split, and write the folder in BEIR layout with `filters.json`, the count of each filter."""
    files = _sources(variant)
    chunks = [files[i::64] for i in range(64)]
    kept, filtered, others = [], Counter(), multiprocessing.active_children()
    try:
        with ProcessPoolExecutor(initializer=_end_with_parent) as pool:
            for part, counts in tqdm(
                pool.map(_extract, chunks),
                total=len(chunks),
                desc="reading docstrings",
                unit="chunk",
            ):
                kept += part
                filtered += counts
    except RuntimeError as error:
        if isinstance(
            error.__context__, KeyboardInterrupt
        ):  # ctrl-C before the pool had started: it cannot be shut down either
            for worker in set(multiprocessing.active_children()).difference(others):
                worker.kill()
                worker.join()
            raise error.__context__ from None
        raise
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
        for name, size in (("test", variant.test), ("dev", variant.dev), ("train", len(text))):
            if len(splits[name]) < size:
                splits[name] += sorted(groups[root])
                break

    (folder / "qrels").mkdir(parents=True)
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as out:
        for pid in sorted(passages):
            out.write(json.dumps({"_id": pid, "text": passages[pid]}, ensure_ascii=False) + "\n")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as out:
        for key in sorted(relevant, key=lambda key: text[key][0]):
            out.write(
                json.dumps({"_id": text[key][0], "text": text[key][1]}, ensure_ascii=False) + "\n"
            )
    for name, keys in splits.items():
        rows = sorted(f"{text[key][0]}\t{pid}\t1" for key in keys for pid in relevant[key])
        (folder / "qrels" / f"{name}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8"
        )
    counts = {
        "files": len(files),
        "filtered": dict(sorted(filtered.items())),
        "passages": len(passages),
        "queries": {name: len(keys) for name, keys in splits.items()},
    }
    (folder / "filters.json").write_text(json.dumps(counts, indent=2) + "\n")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): digest(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "cache.json"
    }


def folder(name: str) -> Path:
    """The cached folder of a variant, in BEIR layout: built on first use, and again where a file's digest does not hold."""
    variant = VARIANTS[name]
    versions = {package: importlib.metadata.version(package) for package in variant.packages}
    if variant.standard_library:
        versions["python"] = platform.python_version()
    key = _hash(json.dumps([EXTRACTOR, versions, astuple(variant)], sort_keys=True))[:16]
    target = CACHE / f"{name.replace(':', '-')}-{key}"

    def save(built: Path) -> None:
        build(variant, built)
        seal = {"extractor": EXTRACTOR, "versions": versions, "digests": _digests(built)}
        (built / "cache.json").write_text(json.dumps(seal, indent=2))

    with alone(CACHE / f".{target.name}.lock", target):
        try:
            if json.loads((target / "cache.json").read_text())["digests"] == _digests(target):
                return target
        except (OSError, ValueError, KeyError, TypeError):
            pass
        for left in (
            target,
            *CACHE.glob(f".{target.name}.*"),
        ):  # damaged, or what a killed process was writing
            shutil.rmtree(left, ignore_errors=True)  # which leaves the lock, a file
        write_folder(target, save)
    return target
