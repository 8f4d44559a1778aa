"""Collections: a hand-made package for the extractor, a hand-made folder for every error."""

import gzip
import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
from toys import write_beir

from leadkit import paths
from leadkit.data import docstrings, python_docs
from leadkit.data.collections import load, read_beir
from leadkit.data.docstrings import query_and_passage
from leadkit.data.python_docs import Variant

LONG = "The elements are compared by their keys, smaller ones come first, and equal ones keep the order that they had before."


# --- one docstring


def test_first_paragraph_is_the_query_and_the_rest_its_passage():
    assert query_and_passage(
        f"\n  Sort a list\n  in place.\n\n{LONG}\n\n  Examples follow here.\n"
    ) == (
        "Sort a list in place.",
        f"{LONG} Examples follow here.",
    )


def test_signature_is_skipped():
    assert query_and_passage(
        f"sort(list, key=None) -> None\n\nSort a list in place.\n\n{LONG}"
    ) == (
        "Sort a list in place.",
        LONG,
    )
    assert query_and_passage(f"np.sort(a,\n  axis=-1)\n\nSort a list in place.\n\n{LONG}") == (
        "Sort a list in place.",
        LONG,
    )
    assert (
        query_and_passage(f"sort(list) sorts a list in place\n\n{LONG}")[0]
        == "sort(list) sorts a list in place"
    )


@pytest.mark.parametrize(
    "docstring, reason",
    [
        ("Sort a list in place.", "one paragraph"),
        ("sort(list)\n\nSort a list in place.", "one paragraph"),
        (f"Sort it now.\n\n{LONG}", "query under 4 or over 40 words"),
        (f"{'very ' * 40}long\n\n{LONG}", "query under 4 or over 40 words"),
        (
            "Sort a list in place.\n\nShort, short, short: a passage with few words, words.",
            "passage under 12 different words",
        ),
        (f"Sort a list in place.\n\n{LONG} sort A LIST, in: place", "query stands in its passage"),
    ],
)
def test_filters(docstring, reason):
    assert query_and_passage(docstring) == reason


def test_lone_surrogates_are_dropped():
    assert query_and_passage(f"Sort a list in place.\ud800\n\n{LONG}\ud83d") == (
        "Sort a list in place.",
        LONG,
    )


# --- a hand-made package

TOPICS = (
    "array",
    "graph",
    "tensor",
    "file",
    "socket",
    "matrix",
    "string",
    "table",
    "thread",
    "image",
    "date",
    "path",
    "regular",
    "window",
    "colour",
    "number",
    "symbol",
    "module",
    "packet",
    "signal",
    "frame",
    "event",
    "token",
    "layer",
    "index",
    "cache",
    "queue",
    "heap",
    "stack",
    "node",
)


def body(word: str) -> str:
    return " ".join(f"{word}{i} {word[::-1]}{i * 7 % 11} about{i}" for i in range(8))


def function(name: str, query: str, passage: str) -> str:
    return f'def {name}():\n    """{query}\n\n    {passage}\n    """\n\n'


def install(site, extra: str = "", version: str = "1.0", parts: int = 3) -> None:
    """A package `toypack` with metadata, as pip leaves it."""
    (site / "toypack" / "tests").mkdir(parents=True, exist_ok=True)
    sources = {
        f"toypack/m{part}.py": "".join(
            function(f"f_{word}", f"Say everything about a {word} here.", body(word))
            for word in TOPICS[part::parts]
        )
        for part in range(parts)
    }
    same = body("twin")
    sources |= {
        "toypack/__init__.py": f'"""The toy package explains everything.\n\n{body("init")}\n"""\n',
        "toypack/twins.py": function("near", "Do the first of two things.", same)
        + function("nearest", "Do the other of the two.", same)
        + function("nearer", "Do the first of two things.", body("other"))
        + extra,
        "toypack/filtered.py": function("short", "Too short.", LONG)
        + function("few", "A query with five words.", "few words")
        + function("trivial", "Compared by their keys.", LONG)
        + function(
            "signed", "signed(a, b=None) -> int\n\n    One fine query to keep.", body("signed")
        ),
        "toypack/broken.py": "def (:\n",
        "toypack/tests/test_it.py": function(
            "hidden", "A query from the test folder.", body("hidden")
        ),
        "toypack/raises.py": 'raise RuntimeError("imported")\n'
        + function("unseen", "Parsed but never imported here.", body("unseen")),
    }
    for name, text in sources.items():
        (site / name).write_text(text)
    info = site / "toypack.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toypack\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in sources))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Where toypack is installed; `load("toy")` reads it, with a cache of its own."""
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(
        python_docs.VARIANTS, "toy", Variant(("toypack",), standard_library=False, test=6, dev=5)
    )
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return folder


def test_extraction_of_a_package(site):
    collection = load("toy")
    assert collection.passages["toypack.m0.f_array"] == body("array")
    assert collection.queries["toypack.m0.f_array"] == "Say everything about a array here."
    assert collection.queries["toypack"] == "The toy package explains everything."
    assert collection.queries["toypack.filtered.signed"] == "One fine query to keep."
    assert "toypack.raises.unseen" in collection.passages  # parsed, never imported
    assert not [
        name
        for name in collection.passages
        if "test_it" in name or name.endswith((".short", ".few", ".trivial"))
    ]
    [folder] = (site.parent / "cache").glob("toy-*")
    counts = json.loads((folder / "filters.json").read_text())
    assert counts["filtered"] == {
        "file does not parse": 1,
        "near-duplicate passage, merged": 1,
        "passage under 12 different words": 1,
        "query stands in its passage": 1,
        "query under 4 or over 40 words": 1,
    }
    assert counts["passages"] == len(collection.passages) == len(TOPICS) + 5
    assert counts["queries"] == {split: len(rows) for split, rows in collection.qrels.items()}


def test_near_duplicates_merge_and_equal_queries_are_one(site):
    collection = load("toy")
    assert "toypack.twins.nearest" not in collection.passages
    judged = {qid: set(row) for rows in collection.qrels.values() for qid, row in rows.items()}
    assert judged["toypack.twins.nearest"] == {"toypack.twins.near"}
    assert judged["toypack.twins.near"] == {"toypack.twins.near", "toypack.twins.nearer"}
    assert "toypack.twins.nearer" not in collection.queries


def test_query_of_more_than_three_passages_is_dropped(site):
    install(
        site,
        "".join(
            function(f"g{i}", "The parameters of the model.", body(f"g{i}x")) for i in range(4)
        ),
    )
    collection = load("toy")
    assert {f"toypack.twins.g{i}" for i in range(4)} <= set(collection.passages)
    assert "The parameters of the model." not in collection.queries.values()


def test_splits_share_neither_query_nor_relevant_passage(site):
    collection = load("toy")
    passages = {
        split: {pid for row in rows.values() for pid in row}
        for split, rows in collection.qrels.items()
    }
    words = {
        split: {q.lower() for q in collection.split(split).values()} for split in collection.qrels
    }
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not passages[a] & passages[b] and not words[a] & words[b]
    assert 6 <= len(collection.qrels["test"]) <= 8 and 5 <= len(collection.qrels["dev"]) <= 7
    assert {qid for rows in collection.qrels.values() for qid in rows} == set(collection.queries)


def test_smoke_collection_keeps_its_promises():
    collection = load("python-docs:smoke")
    assert {s: len(rows) for s, rows in collection.qrels.items() if s != "train"} == {
        "dev": 100,
        "test": 100,
    }
    passages = {
        split: {pid for row in rows.values() for pid in row}
        for split, rows in collection.qrels.items()
    }
    assert (
        not passages["train"] & (passages["dev"] | passages["test"])
        and not passages["dev"] & passages["test"]
    )
    for qid, row in ((qid, row) for rows in collection.qrels.values() for qid, row in rows.items()):
        assert 1 <= len(row) <= 3
        assert collection.queries[qid].lower() not in " ".join(
            collection.passages[pid].lower() for pid in row
        )


def test_number_of_processes_does_not_matter(site, tmp_path, monkeypatch):
    folders = []
    for workers in (1, 2, 5):
        monkeypatch.setattr(
            docstrings, "ProcessPoolExecutor", partial(ProcessPoolExecutor, workers)
        )
        folders.append(tmp_path / f"built-{workers}")
        python_docs.write_collection(python_docs.VARIANTS["toy"], folders[-1])
    first, *others = [
        {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} for folder in folders
    ]
    assert set(first) == {
        "corpus.jsonl",
        "queries.jsonl",
        "train.tsv",
        "dev.tsv",
        "test.tsv",
        "filters.json",
    }
    assert all(other == first for other in others)


def test_packages_that_are_missing_are_named_before_any_work(site, monkeypatch):
    variant = Variant(("toypack", "nopack", "neither"), standard_library=False, test=6, dev=5)
    monkeypatch.setitem(python_docs.VARIANTS, "toy", variant)
    with pytest.raises(ValueError, match=r"lacks nopack, neither: .* -m pip install -e"):
        load("toy")
    assert not paths.CACHE.exists()


def test_fingerprint_follows_content_and_version(site, monkeypatch):
    first = load("toy")
    assert load("toy") == first
    install(site, version="1.1")
    newer = load("toy")
    assert newer.fingerprint != first.fingerprint and newer.passages == first.passages
    install(site, function("added", "One more query stands here.", body("added")), version="1.2")
    assert load("toy").fingerprint not in (first.fingerprint, newer.fingerprint)
    monkeypatch.setattr(python_docs, "EXTRACTOR", python_docs.EXTRACTOR + 1)
    assert load("toy").fingerprint not in (first.fingerprint, newer.fingerprint)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-20], lambda b: b.replace(b"about1", b"about2", 1), lambda b: b""]
)
@pytest.mark.parametrize("name", ["corpus.jsonl", "cache.json"])
def test_damaged_cache_is_rebuilt(site, name, damage):
    first = load("toy")
    [file] = (site.parent / "cache").glob(f"toy-*/{name}")
    content = file.read_bytes()
    damaged = damage(content)
    file.write_bytes(damaged)
    assert load("toy") == first
    assert file.read_bytes() == content


def test_cache_is_built_once(site, monkeypatch):
    first = load("toy")
    monkeypatch.setattr(
        python_docs, "write_collection", lambda *a: pytest.fail("built a second time")
    )
    assert load("toy") == first


def test_two_processes_build_the_cache_once(site, tmp_path, monkeypatch):
    real, log = python_docs.write_collection, tmp_path / "log"

    def build(variant, folder):
        with open(log, "a") as out:
            out.write("built\n")
        real(variant, folder)

    monkeypatch.setattr(python_docs, "write_collection", build)
    both = [
        multiprocessing.get_context("fork").Process(target=load, args=("toy",)) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text() == "built\n"


def test_failing_disk_leaves_no_cache(site, monkeypatch):
    def full(variant, folder):
        (folder / "corpus.jsonl").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(python_docs, "write_collection", full)
    with pytest.raises(OSError, match=r"toy-\w+ could not be written \(No space left on device\)"):
        load("toy")
    assert [p.name for p in (site.parent / "cache").iterdir() if not p.name.endswith(".lock")] == []


# --- BEIR folders

PASSAGES, QUERIES = {"d1": "First text", "d2": "Second text"}, {"q1": "A question", "q2": "Another"}
QRELS = {"train": {"q1": {"d1": 1}}, "test": {"q2": {"d2": 2, "d1": 0}}}


@pytest.fixture
def folder(tmp_path):
    write_beir(tmp_path / "beir", PASSAGES, QUERIES, QRELS)
    return tmp_path / "beir"


def test_beir_folder(folder):
    collection = load(f"beir:{folder}")
    assert (collection.passages, collection.queries, collection.qrels) == (PASSAGES, QUERIES, QRELS)
    assert collection.split("test") == {"q2": "Another"}
    assert collection.passage_row == {"d1": 0, "d2": 1}
    with pytest.raises(
        ValueError, match=r"split 'dev' is not in collection .*: choose one of \['test', 'train'\]"
    ):
        collection.split("dev")


def test_title_stands_before_the_text(folder):
    lines = (
        '{"_id": "d1", "title": "Title", "text": "First"}',
        '{"_id": "d2", "title": null, "text": "x"}',
    )
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    assert load(f"beir:{folder}").passages == {"d1": "Title First", "d2": "x"}


def test_gzip_byte_order_mark_crlf_and_blank_lines_read_the_same(folder):
    first = load(f"beir:{folder}")
    for name in ("corpus.jsonl", "queries.jsonl"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(
            gzip.compress(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
        )
    for path in (folder / "qrels").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(f"beir:{folder}") == first


def test_qrels_without_a_header(folder):
    (folder / "qrels" / "test.tsv").write_text("q2\td2\t2\nq2\td1\t0\n")
    assert load(f"beir:{folder}").qrels == QRELS


def test_fingerprint_changes_with_every_part_of_the_content(folder, tmp_path):
    changed = [
        (PASSAGES | {"d1": "First texT"}, QUERIES, QRELS),
        (PASSAGES, QUERIES | {"q1": "A questioN"}, QRELS),
        (PASSAGES, QUERIES, QRELS | {"train": {"q1": {"d1": 2}}}),
        (PASSAGES | {"d3": "Third"}, QUERIES, QRELS),
    ]
    names = [write_beir(tmp_path / str(i), *parts) for i, parts in enumerate(changed)]
    prints = {load(name).fingerprint for name in (f"beir:{folder}", *names)}
    assert len(prints) == 5
    assert read_beir(folder, "another name").fingerprint in prints


def line(**fields) -> str:
    return json.dumps({"_id": "d1", "text": "First"} | fields)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            '{"_id": "d1", "text": "x"}\n{"_id": "d2", "text": "x"\n',
            r"corpus\.jsonl, line 2: not a JSON object",
        ),
        (
            '{"_id": "d1"}\n',
            r"line 1: not a JSON object in UTF-8 with the string fields _id and text \(KeyError\('text'\)",
        ),
        ('["d1", "x"]\n', "line 1: not a JSON object"),
        ("5\n", "line 1: not a JSON object"),
        (line(text=None) + "\n", "line 1: not a JSON object"),
        (line(text=7) + "\n", "line 1: not a JSON object"),
        (line(title=["a"]) + "\n", "line 1: not a JSON object"),
        ('{"_id": "d1", "text": "\\ud800"}\n', "line 1: not a JSON object in UTF-8"),
        (
            line() + "\n\n" + line(_id="d2", text="  ") + "\n",
            r"corpus\.jsonl, line 3: 'd2' has an empty text",
        ),
        (
            line() + "\n" + line(text="again") + "\n",
            "line 2: _id 'd1' stands there a second time; ids must be unique",
        ),
        (
            line(_id="a b") + "\n",
            "line 1: _id 'a b' must be a non-empty string without white space",
        ),
        (line(_id="") + "\n", "line 1: _id '' must be a non-empty string"),
        (line(_id=1) + "\n", "line 1: _id 1 must be a non-empty string"),
        ("\n\n", r"corpus\.jsonl holds no line; at least one is needed"),
    ],
)
def test_malformed_corpus(folder, content, message):
    (folder / "corpus.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(f"beir:{folder}")


def test_bytes_that_are_no_utf8(folder):
    (folder / "queries.jsonl").write_bytes(
        b'{"_id": "q1", "text": "fine"}\n{"_id": "q2", "text": "caf\xe9"}\n'
    )
    with pytest.raises(ValueError, match=r"queries\.jsonl, line 2: not a JSON object in UTF-8"):
        load(f"beir:{folder}")


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-12], lambda b: b"no gzip at all", lambda b: b[:20] + b"\0\0\0\0" + b[24:]],
)
def test_damaged_gzip(folder, damage):
    content = (folder / "corpus.jsonl").read_bytes()
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(damage(gzip.compress(content)))
    with pytest.raises(ValueError, match=r"corpus\.jsonl\.gz"):
        load(f"beir:{folder}")


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "q2\td2\n",
            r"test\.tsv, line 1: 'q2\\td2\\n' is not 'query-id TAB corpus-id TAB integer score'",
        ),
        ("query-id\tcorpus-id\tscore\nq2\td2\tgood\n", r"test\.tsv, line 2: .* integer score"),
        ("q2 0 d2 1\n", "line 1: .* is not 'query-id TAB corpus-id TAB integer score'"),
        (
            "query-id\tcorpus-id\tscore\nq2\td2\t1\nq9\td2\t1\n",
            r"line 3: query-id 'q9' is not in queries\.jsonl",
        ),
        ("q2\td9\t1\n", r"line 1: corpus-id 'd9' is not in corpus\.jsonl"),
    ],
)
def test_malformed_qrels(folder, content, message):
    (folder / "qrels" / "test.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(f"beir:{folder}")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=rf"collection folder {re.escape(str(folder))} has no {name} or {name}\.gz",
    ):
        load(f"beir:{folder}")


def test_missing_qrels_and_missing_folder(folder, tmp_path):
    for path in (folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no qrels/\*\.tsv"):
        load(f"beir:{folder}")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load(f"beir:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("name", ["python-doc", "", "msmarco", "/some/folder"])
def test_unknown_collection(name):
    with pytest.raises(
        ValueError,
        match=rf"collection {name!r} is unknown: use 'python-docs', 'python-docs:smoke', 'beir:PATH' or "
        "'irds:NAME'",
    ):
        load(name)


def test_home_folder_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("beir:~/beir").passages == PASSAGES


@pytest.mark.parametrize("name, passages, test", [("nq-qed", 8096, 1204), ("cranfield", 1398, 225)])
def test_real_folders_load_with_the_counts_of_their_readme(collections_dir, name, passages, test):
    collection = load(f"beir:{collections_dir / name}")
    assert (len(collection.passages), len(collection.split("test"))) == (passages, test)
    row = next(
        line
        for line in (collections_dir / "README.md").read_text().splitlines()
        if line.startswith(f"| {name} |")
    )
    assert row.split("|")[2].strip() == str(passages) and row.split("|")[5].strip() == str(test)
