"""Collections: a hand-made package for the extractor, a hand-made folder for every error."""

import gzip
import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
from toys import TOPICS, body, function, install, write_beir

from leadkit import paths
from leadkit.data import docstrings, python_docs
from leadkit.data.collections import load, read_beir
from leadkit.data.docstrings import query_and_passage
from leadkit.data.python_docs import Variant

LONG = (
    "The elements are compared by their keys, smaller ones come first, and equal ones keep the "
    "order that they had before."
)


# --- one docstring


QUERY = "Sort a list in place."
PAIRS = {
    f"\n  Sort a list\n  in place.\n\n{LONG}\n\n  And more.\n": (QUERY, f"{LONG} And more."),
    f"sort(list, key=None) -> None\n\n{QUERY}\n\n{LONG}": (QUERY, LONG),
    f"np.sort(a,\n  axis=-1)\n\n{QUERY}\n\n{LONG}": (QUERY, LONG),
    f"sort(list) sorts a list in place\n\n{LONG}": ("sort(list) sorts a list in place", LONG),
    f"{QUERY}\ud800\n\n{LONG}\ud83d": (QUERY, LONG),  # a lone surrogate is dropped
}
FILTERED = {
    QUERY: "one paragraph",
    f"sort(list)\n\n{QUERY}": "one paragraph",
    f"Sort it now.\n\n{LONG}": "query under 4 or over 40 words",
    f"{'very ' * 40}long\n\n{LONG}": "query under 4 or over 40 words",
    f"{QUERY}\n\nShort, short, short: a passage with few words, words.": (
        "passage under 12 different words"
    ),
    f"{QUERY}\n\n{LONG} sort A LIST, in: place": "query stands in its passage",
}


def test_first_paragraph_is_the_query_and_the_rest_its_passage(subtests):
    for docstring, want in (PAIRS | FILTERED).items():
        with subtests.test(docstring.encode("utf-8", "replace")):
            assert query_and_passage(docstring) == want


# --- a hand-made package


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


def test_damaged_cache_is_rebuilt(site, subtests):
    first = load("toy")
    for name in ("corpus.jsonl", "cache.json"):
        [file] = (site.parent / "cache").glob(f"toy-*/{name}")
        content = file.read_bytes()
        for damaged in (content[:-20], content.replace(b"about1", b"about2", 1), b""):
            file.write_bytes(damaged)
            with subtests.test(name):
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


def test_beir_folder(folder, monkeypatch):
    collection = load(f"beir:{folder}")
    assert (collection.passages, collection.queries, collection.qrels) == (PASSAGES, QUERIES, QRELS)
    assert collection.split("test") == {"q2": "Another"}
    assert collection.passage_row == {"d1": 0, "d2": 1}
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("beir:~/beir").fingerprint == collection.fingerprint
    with pytest.raises(
        ValueError, match=r"split 'dev' is not in collection .*: choose one of \['test', 'train'\]"
    ):
        collection.split("dev")


def test_titles_and_qrels_without_a_header(folder):
    (folder / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "Title", "text": "First"}\n'
        '{"_id": "d2", "title": null, "text": "x"}'
    )
    (folder / "qrels" / "test.tsv").write_text("q2\td2\t2\nq2\td1\t0\n")
    collection = load(f"beir:{folder}")
    assert collection.passages == {"d1": "Title First", "d2": "x"}  # before the text
    assert collection.qrels == QRELS


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


def test_damaged_gzip(folder, subtests):
    content = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    for damaged in (content[:-12], b"no gzip at all", content[:20] + bytes(4) + content[24:]):
        (folder / "corpus.jsonl.gz").write_bytes(damaged)
        with subtests.test(damaged), pytest.raises(ValueError, match=r"corpus\.jsonl\.gz"):
            load(f"beir:{folder}")


LINE = '{"_id": "d1", "text": "x"}\n'
HEADER = "query-id\tcorpus-id\tscore\n"
MALFORMED = [  # tests/test_hostile.py has more
    ("corpus.jsonl", LINE + '{"_id": "d2", "text": "x"\n', "line 2: not a JSON object in UTF-8"),
    ("corpus.jsonl", '{"_id": "d1"}\n', "the string fields _id and text (KeyError('text')"),
    ("corpus.jsonl", LINE + '\n{"_id": "d2", "text": " "}', "line 3: 'd2' has an empty text"),
    ("corpus.jsonl", LINE + LINE, "line 2: _id 'd1' stands there a second time; ids must be"),
    ("corpus.jsonl", "\n\n", "corpus.jsonl holds no line; at least one is needed"),
    ("qrels/test.tsv", HEADER + "q2\td2\tgood\n", "line 2: 'q2\\td2\\tgood\\n' is not 'query-id"),
    ("qrels/test.tsv", HEADER + "q2\td2\t1\nq9\td2\t1\n", "line 3: query-id 'q9' is not in"),
]


def test_folders_that_are_no_collection(folder, tmp_path, subtests):
    for file, content, message in MALFORMED:
        before = (folder / file).read_text()
        (folder / file).write_text(content)
        with subtests.test(message), pytest.raises(ValueError, match=re.escape(message)) as error:
            load(f"beir:{folder}")
        assert str(folder / file) in str(error.value)
        (folder / file).write_text(before)
    for name in ("qrels/*.tsv", "queries.jsonl", "corpus.jsonl"):
        for path in folder.glob(name):
            path.unlink()
        message = re.escape(f"collection folder {folder} has no {name}")
        with subtests.test(name), pytest.raises(FileNotFoundError, match=message):
            load(f"beir:{folder}")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load(f"beir:{tmp_path / 'nowhere'}")
    for name in ("python-doc", "", "msmarco", "/some/folder"):
        message = f"collection {name!r} is unknown: use 'python-docs', 'python-docs:smoke', 'beir:P"
        with subtests.test(name), pytest.raises(ValueError, match=message):
            load(name)


def test_real_folders_load_with_the_counts_of_their_readme(collections_dir):
    readme = (collections_dir / "README.md").read_text().splitlines()
    for name, passages, test in (("nq-qed", 8096, 1204), ("cranfield", 1398, 225)):
        collection = load(f"beir:{collections_dir / name}")
        assert (len(collection.passages), len(collection.split("test"))) == (passages, test)
        [row] = [line.split("|") for line in readme if line.startswith(f"| {name} |")]
        assert (row[2].strip(), row[5].strip()) == (str(passages), str(test))
