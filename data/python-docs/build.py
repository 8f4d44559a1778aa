"""Make the collection python-docs anew from what is installed: `python build.py FOLDER`.

The folder receives the compressed file and its NOTICE. It takes about a minute on one core and
needs the extra `[dev]`. The committed file is what counts: another Python, or other versions of the
packages, give another collection, so what this script writes replaces the committed file only in a
new edition: another name, another salt, another digest in leadkit/data/python_docs.py.
"""

import importlib.metadata
import json
import lzma
import platform
import re
import sys
import sysconfig
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from datasketch import MinHashLSH
from docstrings import PERMUTATIONS, Docstring, Source, extract, sketch, words
from scipy.cluster.hierarchy import DisjointSet

from leadkit.data.python_docs import FILE, SALT, SLICES, draw

ALIKE = 0.7  # two passages of a higher Jaccard similarity count as one
MOST = 3  # passages of a query; one with more is too general to judge
STANDARD = "Python standard library"
APACHE = "Apache-2.0"
LICENCES = {  # distribution -> its licence, by its metadata and its licence file
    "accelerate": APACHE,
    "huggingface-hub": APACHE,
    "ipython": "BSD-3-Clause",
    "jupyter-server": "BSD-3-Clause",
    "matplotlib": "matplotlib licence (PSF-style)",
    "networkx": "BSD-3-Clause",
    "numpy": "BSD-3-Clause",
    "pandas": "BSD-3-Clause",
    "pydantic": "MIT",
    "Python standard library": "PSF-2.0",
    "safetensors": APACHE,
    "scipy": "BSD-3-Clause",
    "seaborn": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "tokenizers": APACHE,
    "torch": "BSD-3-Clause",
    "tornado": APACHE,
    "tqdm": "MPL-2.0 and MIT",
    "transformers": APACHE,
}
NO_SOURCES = re.compile(
    r"^(tests?|testing|idlelib|turtledemo|_?vendor(ed)?|_pyrepl|bin|.*\.data|\.\.)$"
    r"|^(test_|conftest)"
)
LICENCE_FILE = re.compile(r"[^/]+\.dist-info/(licenses/)?(LICEN[CS]E|COPYING)(\.\w+)?")
# After these lines a licence file speaks of the binaries that are bundled, which are not read here.
BUNDLED = re.compile(r"\n-{4,}\n\nThe (NumPy|SciPy) repository|\n----\n")
NOTICE = f"""\
{FILE} holds docstrings of the following packages, cut into queries and passages; white space
was normalised, near-duplicates were merged. The text stays under the licence of its source.
A passage's id is the qualified name of what it documents and so names its source.
"""


@dataclass(frozen=True)
class Query:
    """relevant: ids of its passages; name: of the docstring that gives its text."""

    name: str
    text: str
    relevant: list[str]


def sources() -> list[Source]:
    """Every Python file of the sources, sorted; no tests, no vendored copies."""
    files: list[tuple[Path, Path, str]] = []
    for name in LICENCES:
        files += _standard_library() if name == STANDARD else _distribution(name)
    return sorted(
        (
            Source(path, ".".join(relative.with_suffix("").parts).removesuffix(".__init__"), name)
            for path, relative, name in files
            if not any(NO_SOURCES.match(part) for part in relative.parts)
        ),
        key=lambda source: (source.path, source.module),
    )


def _standard_library() -> list[tuple[Path, Path, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [(path, path.relative_to(root), STANDARD) for path in root.rglob("*.py")]
    others = {"site-packages", "dist-packages", "lib2to3"}
    return [file for file in files if others.isdisjoint(file[1].parts)]


def _distribution(name: str) -> list[tuple[Path, Path, str]]:
    files = importlib.metadata.files(name) or ()
    return [
        (Path(str(file.locate())), Path(str(file)), name) for file in files if file.suffix == ".py"
    ]


def unique(docstrings: list[Docstring]) -> list[Docstring]:
    """One docstring for each name (a property and its setter share one), shortest name first."""
    ordered = sorted(docstrings, key=lambda d: (len(d.name), d.name, d.query, d.passage))
    by_name: dict[str, Docstring] = {}
    for docstring in ordered:
        by_name.setdefault(docstring.name, docstring)
    return list(by_name.values())


def merge(docstrings: list[Docstring]) -> dict[str, str]:
    """Name -> the shortest name among those whose passages are nearly the same."""
    index = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS)
    representative: dict[str, str] = {}
    for docstring in docstrings:
        signature = sketch(docstring.passage)
        twins = sorted(index.query(signature), key=lambda name: (len(name), name))
        representative[docstring.name] = twins[0] if twins else docstring.name
        if not twins:
            index.insert(docstring.name, signature)
    return representative


def questions(docstrings: list[Docstring], representative: dict[str, str]) -> list[Query]:
    """The queries, sorted by name: those of the same words are one, with several passages."""
    relevant: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Docstring] = {}
    for docstring in docstrings:
        key = " ".join(words(docstring.query))
        relevant[key].add(representative[docstring.name])
        first.setdefault(key, docstring)
    queries = [Query(first[k].name, first[k].query, sorted(ids)) for k, ids in relevant.items()]
    return sorted(queries, key=lambda query: query.name)


def groups(queries: list[Query]) -> dict[str, str]:
    """Query -> the first passage of those that it and others share: what is split as one."""
    sets = DisjointSet(passage for query in queries for passage in query.relevant)
    for query in queries:
        for other in query.relevant[1:]:
            sets.merge(query.relevant[0], other)
    return {query.name: min(sets.subset(query.relevant[0])) for query in queries}


def build(docstrings: list[Docstring], filtered: Counter[str]) -> tuple[dict, bytes]:
    """The header and the text of the collection, from docstrings that passed the filters."""
    docstrings = unique(docstrings)
    representative = merge(docstrings)
    passages = {d.name: d for d in docstrings if representative[d.name] == d.name}
    every = questions(docstrings, representative)
    queries = [query for query in every if len(query.relevant) <= MOST]
    filtered = filtered + Counter(
        {
            "near-duplicate passage, merged": len(docstrings) - len(passages),
            "query of more than 3 passages": len(every) - len(queries),
        }
    )
    group = groups(queries)
    header = {
        "collection": "python-docs",
        "edition": 2,
        "salt": SALT,
        "passages": len(passages),
        "queries": {name: len(ids) for name, ids in draw(group, SLICES["python-docs"]).items()},
        "filtered": dict(sorted(filtered.items())),
        "sources": described(Counter(passage.distribution for passage in passages.values())),
    }
    rows: list[dict] = [header]
    rows += [{"passage": name, "text": passages[name].passage} for name in sorted(passages)]
    for query in queries:
        row = {"query": query.name, "text": query.text, "relevant": query.relevant}
        rows.append(row | {"group": group[query.name]})
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return header, "".join(lines).encode()


def described(passages: Counter[str]) -> dict[str, dict]:
    """Distribution -> its version, licence and number of passages."""
    return {
        name: {"version": version(name), "licence": LICENCES[name], "passages": passages[name]}
        for name in LICENCES
        if name in passages
    }


def version(name: str) -> str:
    """The version of a source without its local part: 2.13.0 for 2.13.0+cpu."""
    if name == STANDARD:
        return platform.python_version()
    return importlib.metadata.version(name).partition("+")[0]


def licence_text(name: str) -> str:
    """What the licence file of a source says about the source itself; "" where there is none."""
    if name == STANDARD:
        path = Path(sysconfig.get_paths()["stdlib"]) / "LICENSE.txt"
        return path.read_text(encoding="utf-8")
    files = importlib.metadata.files(name) or ()
    for file in files:
        if LICENCE_FILE.fullmatch(str(file)):
            text = Path(str(file.locate())).read_text(encoding="utf-8")
            return BUNDLED.split(text)[0]
    return ""


def notice(header: dict) -> str:
    """NOTICE: every source with version and licence, then the text of each licence once."""
    lines = [NOTICE]
    texts: dict[str, str] = {}
    for name, source in header["sources"].items():
        licence = source["licence"]
        lines.append(f"  {name} {source['version']}: {licence}, {source['passages']} passages")
        key = APACHE if licence == APACHE else name
        texts[key] = texts.get(key) or licence_text(name).strip()
    rule = "=" * 100
    for key, text in texts.items():
        lines += ["", rule, key, rule, "", text]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header, text = build(*extract(sources()))
    (folder / FILE).write_bytes(lzma.compress(text, preset=9))
    (folder / "NOTICE").write_text(notice(header), encoding="utf-8")
    print(json.dumps(header, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
