"""The frozen collection, and the script that made it: on a hand-made package."""

import hashlib
import json
import lzma
import re

import build
import pytest
from docstrings import extract, query_and_passage, words
from toys import TOPICS, body, function, install

from leadkit import paths
from leadkit.data import python_docs
from leadkit.data.collections import load
from leadkit.data.python_docs import Slice

# --- the file


@pytest.fixture(scope="module")
def both():
    """The whole and its slice."""
    return load("python-docs"), load("python-docs:smoke")


def test_the_text_is_the_same_on_every_python(both):
    whole, smoke = both
    assert (whole.fingerprint, smoke.fingerprint) == ("ea11643403aab7d1", "714d64d984e11e0c")
    assert (len(whole.passages), len(smoke.passages)) == (26_089, 1_261)
    sizes = [{split: len(rows) for split, rows in docs.qrels.items()} for docs in both]
    assert sizes == [
        {"test": 2_000, "dev": 1_000, "train": 22_691},
        {"test": 100, "dev": 100, "train": 1_042},
    ]


def test_splits_share_neither_query_nor_relevant_passage(both):
    for docs in both:
        passages = {
            split: {pid for row in rows.values() for pid in row}
            for split, rows in docs.qrels.items()
        }
        texts = {
            split: {query.lower() for query in docs.split(split).values()} for split in docs.qrels
        }
        for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
            assert not passages[a] & passages[b] and not texts[a] & texts[b]
        assert {qid for rows in docs.qrels.values() for qid in rows} == set(docs.queries)
        assert {len(row) for rows in docs.qrels.values() for row in rows.values()} == {1, 2, 3}


def test_the_slice_trains_and_tunes_on_no_test_query_of_the_whole(both):
    whole, smoke = both
    for split in ("train", "dev"):
        assert not smoke.qrels[split].keys() & whole.qrels["test"].keys()


def test_no_query_stands_in_a_passage_of_its_own_docstring(both):
    """The filter reads one docstring: it does not see the passage that another was merged into."""
    docs, smoke = both
    plain = {pid: " ".join(words(text)) for pid, text in docs.passages.items()}
    trivial = {
        qid: split
        for split, rows in docs.qrels.items()
        for qid, row in rows.items()
        if any(" ".join(words(docs.queries[qid])) in plain[pid] for pid in row)
    }
    assert len(trivial) == 5 and not trivial.keys() & (docs.passages.keys() | smoke.queries.keys())
    test = [qid for qid, split in trivial.items() if split != "train"]
    assert test == ["pandas.io.formats.style.Styler.background_gradient"]  # data/README.md says so


def test_every_source_has_its_licence_in_the_notice():
    notice = (paths.PYTHON_DOCS / "NOTICE").read_text(encoding="utf-8")
    sources = python_docs.header()["sources"]
    assert len(sources) == 19
    for name, source in sources.items():
        said = f"  {name} {source['version']}: {source['licence']}, {source['passages']} passages\n"
        assert said in notice
        assert f"\n{'Apache-2.0' if source['licence'] == 'Apache-2.0' else name}\n=====" in notice
    assert (paths.PYTHON_DOCS / python_docs.FILE).stat().st_size < 6e6


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 0.999999])
def test_a_flipped_byte_is_named(tmp_path, monkeypatch, place):
    content = bytearray((paths.PYTHON_DOCS / python_docs.FILE).read_bytes())
    content[int(place * len(content))] ^= 1
    damaged = tmp_path / python_docs.FILE
    damaged.write_bytes(content)
    monkeypatch.setattr(paths, "PYTHON_DOCS", tmp_path)
    message = f"^{re.escape(str(damaged))} is damaged .*: git -C .* restore data/python-docs brings"
    with pytest.raises(ValueError, match=message):
        load("python-docs")


def test_another_text_is_refused_and_a_missing_file_named(tmp_path, monkeypatch):
    text = "\n".join(python_docs.lines()).replace("matrix", "Matrix", 1) + "\n"
    monkeypatch.setattr(paths, "PYTHON_DOCS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"xz is missing: git -C .* restore"):
        load("python-docs:smoke")
    (tmp_path / python_docs.FILE).write_bytes(lzma.compress(text.encode(), preset=0))
    got = hashlib.sha256(text.encode()).hexdigest()
    message = f"another text: its SHA-256 is {got}, {python_docs.DIGEST} is expected: git"
    with pytest.raises(ValueError, match=message):
        load("python-docs:smoke")


def test_how_the_text_is_compressed_does_not_matter(tmp_path, monkeypatch, both):
    text = ("\n".join(python_docs.lines()) + "\n").encode()
    (tmp_path / python_docs.FILE).write_bytes(lzma.compress(text, preset=0))
    monkeypatch.setattr(paths, "PYTHON_DOCS", tmp_path)
    assert load("python-docs:smoke") == both[1]


# --- one docstring

LONG = (
    "The elements are compared by their keys, smaller ones come first, and equal ones keep the "
    "order that they had before."
)
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
    """Where toypack is installed, the one source; `made` makes the collection of it."""
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(build, "LICENCES", {"toypack": "MIT"})
    slices = {"python-docs": Slice("", 6, 5), "python-docs:smoke": Slice("toypack.m0.", 2, 2)}
    for name, part in slices.items():
        monkeypatch.setitem(python_docs.SLICES, name, part)
    monkeypatch.setattr(paths, "PYTHON_DOCS", tmp_path / "made")
    return folder


def made(monkeypatch, name="python-docs"):
    """The collection of toypack, written by the script and read again."""
    build.main(paths.PYTHON_DOCS)
    text = lzma.decompress((paths.PYTHON_DOCS / python_docs.FILE).read_bytes())
    monkeypatch.setattr(python_docs, "DIGEST", hashlib.sha256(text).hexdigest())
    return load(name)


def test_extraction_of_a_package(site, monkeypatch, capsys):
    docs = made(monkeypatch)
    assert docs.passages["toypack.m0.f_array"] == body("array")
    assert docs.queries["toypack.m0.f_array"] == "Say everything about a array here."
    assert docs.queries["toypack"] == "The toy package explains everything."
    assert docs.queries["toypack.filtered.signed"] == "One fine query to keep."
    assert "toypack.raises.unseen" in docs.passages  # parsed, never imported
    assert not [
        name
        for name in docs.passages
        if "test_it" in name or name.endswith((".short", ".few", ".trivial"))
    ]
    header = python_docs.header()
    assert json.loads(capsys.readouterr().out) == header
    assert header["filtered"] == {
        "file does not parse": 1,
        "near-duplicate passage, merged": 1,
        "passage under 12 different words": 1,
        "query stands in its passage": 1,
        "query under 4 or over 40 words": 1,
    }
    assert header["passages"] == len(docs.passages) == len(TOPICS) + 5
    assert header["queries"] == {split: len(rows) for split, rows in docs.qrels.items()}
    described = {"version": "1.0", "licence": "MIT", "passages": len(docs.passages)}
    assert header["sources"] == {"toypack": described}
    notice = (paths.PYTHON_DOCS / "NOTICE").read_text()
    assert "  toypack 1.0: MIT, " in notice and "You may do with it what you like." in notice
    rows = [json.loads(line) for line in python_docs.lines()[1:]]
    for kind in ("passage", "query"):
        names = [row[kind] for row in rows if kind in row]
        assert names == sorted(set(names))


def test_near_duplicates_merge_and_equal_queries_are_one(site, monkeypatch):
    docs = made(monkeypatch)
    assert "toypack.twins.nearest" not in docs.passages
    judged = {qid: set(row) for rows in docs.qrels.values() for qid, row in rows.items()}
    assert judged["toypack.twins.nearest"] == {"toypack.twins.near"}
    assert judged["toypack.twins.near"] == {"toypack.twins.near", "toypack.twins.nearer"}
    assert "toypack.twins.nearer" not in docs.queries
    [split] = [split for split, rows in docs.qrels.items() if "toypack.twins.near" in rows]
    assert "toypack.twins.nearest" in docs.qrels[split]  # they share a passage


def test_query_of_more_than_three_passages_is_dropped(site, monkeypatch):
    install(
        site,
        "".join(
            function(f"g{i}", "The parameters of the model.", body(f"g{i}x")) for i in range(4)
        ),
    )
    docs = made(monkeypatch)
    assert {f"toypack.twins.g{i}" for i in range(4)} <= set(docs.passages)
    assert "The parameters of the model." not in docs.queries.values()
    assert python_docs.header()["filtered"]["query of more than 3 passages"] == 1


def test_a_slice_is_what_its_prefix_says(site, monkeypatch):
    smoke = made(monkeypatch, "python-docs:smoke")
    whole = load("python-docs")
    passages = {pid: text for pid, text in whole.passages.items() if pid.startswith("toypack.m0.")}
    assert smoke.passages == passages and len(passages) == len(TOPICS[::3])
    assert {len(smoke.qrels[split]) for split in ("test", "dev")} == {2}
    assert smoke.fingerprint != whole.fingerprint


def test_the_same_sources_give_the_same_bytes(site, tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        build.main(folder)
    for name in (python_docs.FILE, "NOTICE"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


def test_an_unpublished_part_of_a_version_is_left_out(monkeypatch):
    monkeypatch.setattr(build.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert build.version("torch") == "2.13.0"


def test_the_standard_library_is_read_without_its_tests():
    sources = [source for source in build.sources() if source.distribution == build.STANDARD]
    modules = {source.module for source in sources}
    assert {"json", "json.decoder", "email.mime.text"} <= modules
    assert not [name for name in modules if re.search(r"(^|\.)(tests?|idlelib)(\.|$)", name)]
    kept, _ = extract([source for source in sources if source.module == "heapq"])
    assert kept and {docstring.distribution for docstring in kept} == {build.STANDARD}
