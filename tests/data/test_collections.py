"""Collections: a hand-made folder for every error."""

import gzip
import re

import pytest
from toys import write_beir

from leadkit.data.collections import load, read_beir

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
    ("corpus.jsonl", '{"_id": "d2", "text": " "}', "holds no line with a text"),
    (
        "corpus.jsonl",
        LINE + LINE.replace('"x"', '"y"'),
        "line 2: _id 'd1' stands there a second time; ids must be",
    ),
    ("corpus.jsonl", "\n\n", "corpus.jsonl holds no line with a text; at least one is needed"),
    ("qrels/test.tsv", HEADER + "q2\td2\tgood\n", "line 2: score 'good' is not a whole number"),
    ("qrels/test.tsv", HEADER + "q2\td2\n", "line 2: 'q2\\td2\\n' is not 'query-id TAB"),
    ("qrels/test.tsv", HEADER + "q9\td2\t1\nq9\td1\t1\n", "line 2: query-id 'q9' is not in"),
    ("qrels/test.tsv", HEADER + "q2\td9\t1\n", "line 2: corpus-id 'd9' is not in corpus.jsonl"),
    ("qrels/test.tsv", HEADER + "q2\td2\t0\n", "holds no judgement of a relevant passage"),
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
