"""Generated numbers: the tree's are those of the records, and a marker cannot say a false thing."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from leadkit import paths
from leadkit.lessons.world import record
from leadkit.results import records, report, tried
from leadkit.results.blocks import BLOCKS
from leadkit.results.claims import ledger
from leadkit.results.coverage import coverage
from leadkit.results.generators import INLINE
from leadkit.results.predicates import CLAIMS
from leadkit.results.sources import Source


def test_running_the_report_on_the_tree_changes_nothing():
    """Neither a page nor the figure, which says in its file which records it shows."""
    names = "main-table", "primary", "score-sizes"
    drawings = dict.fromkeys(names, lambda found: pytest.fail("a figure was drawn anew"))
    outdated = [page.name for page in report.outdated_pages(drawings)]
    assert not outdated, f"python -m leadkit report writes {', '.join(outdated)} anew"


def test_a_number_that_was_typed_is_written_anew():
    readme = paths.ROOT / "README.md"
    text = readme.read_text()
    number = r"(<!--=(?:mean|margin) [^>]*-->)[\d.]+(?=<!--/-->)"
    typed, count = re.subn(number, r"\g<1>99.99", text)
    assert count > 1 and typed != text
    assert report.fill(typed, readme, Source({"main-table": lambda found: None})) == text


# --- a tree of known records

MEANS = {"CB LEAD": 30.0, "CB RD": 20.0, "CB FD": 10.0, "student": 15.0, "CE RD": 1.0, "BM25": 5.0}
BLOCK = "<!-- report: {} -->\n<!-- /report -->\n"


def points(name, seed):
    """MRR@10 of ten queries in points: the mean, 1 more with each seed, up and down."""
    return MEANS[name] + seed + np.tile([-1, 1], 5) * (1 + MEANS[name] / 20)


def rows(seeds, moved=0.0):
    for name in MEANS:
        for seed in seeds:
            values = (points(name, seed) + moved) / 100
            means = {"RR@10": values.mean(), "AP@1000": 0.4, "R@100": 0.5, "R@1000": 0.75}
            what = {"collection": "toy", "fingerprint": "f", "split": "test", "stage": {}}
            per_query = {"per_query": {"RR@10": values}}
            head = {"experiment": name, "seed": seed, "measures": means}
            yield head | what | per_query


def line(setting, measure, values):
    told = dict.fromkeys(tried.FIELDS, "") | {"seeds": [], "question": "lengths"}
    return told | {"setting": setting, "measure": measure, "values": values}


@pytest.fixture
def tree(monkeypatch, tmp_path):
    """A checkout with two folders of records; the second has MRR@10 half a point higher."""
    results = tmp_path / "data" / "results"
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", results)
    records.merge(rows(range(5)), results / "classroom")
    records.merge(rows(range(2), 0.5), results / "other")
    (results / "bench").mkdir()
    measured = {"AVX2": {"ratio": {"seconds": 0.1234}}}
    (results / "bench" / "maxsim.json").write_text(json.dumps(measured))
    lines = [
        line("64 tokens", "MRR@10", [20.25, 30.5]),
        line("96 tokens", "MRR@10", [40.0]),
        line("96 tokens", "loss by layer, nats", [3.0, 1.25]),
    ]
    (results / "world").mkdir()
    mrr = {world: dict.fromkeys(names, [50.0, 52.0]) for world, names in record.needed().items()}
    mrr["drowned"] = mrr["drowned"] | {"LEAD": [70.0, 73.0]}
    (results / "world" / "students.json").write_text(json.dumps({"mrr": mrr}))
    (results / "tried.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return tmp_path


def filled(text, tree, drawings=None):
    return report.fill(text, tree / "README.md", Source(drawings))


INLINES = {
    "mean classroom: CB LEAD": "32.00",
    "mean classroom: CB LEAD, R@100": "50.00",
    "mean classroom: CB LEAD, seed 3": "33.00",
    "mean classroom: CB LEAD, R@1000, seed 3 {.1f}": "75.0",
    "sd classroom: CB LEAD": f"{np.std(range(5), ddof=1):.2f}",
    "difference classroom: CB LEAD - CB RD": "+10.00",
    "difference classroom: CB FD - CB RD, seed 1": "-10.00",
    "difference classroom: cb-lead-student": "+15.00",
    "margin classroom: CB LEAD - student": "15.00",
    "margin classroom: cb-rd-fd {.0f}": "10",
    "verdict classroom: cb-lead-rd": "holds",
    "gate classroom: CE teacher - DE teacher": "not measured",
    "count classroom: run": "4",
    "count classroom: holds": "4",
    "count classroom: not run": str(len(CLAIMS) - 4),
    "count classroom: queries": "10",
    "paper cb-lead-rd": "+1.78",
    "paper CB LEAD": "37.80",
    "tried lengths: 64 tokens / MRR@10": "25.38",
    "tried lengths: 96 tokens / MRR@10 {.2f}": "40.00",
    "range lengths: 64 tokens / MRR@10": "20.25 to 30.50",
    "apart classroom other: mean": "0.50",
    "apart classroom other: most {.1f}": "0.5",
    "bench maxsim: AVX2 / ratio / seconds": "0.12",
    "bench maxsim: AVX2 / ratio / seconds {.1%}": "12.3%",
    "world drowned: LEAD": "71.50",
    "world drowned: LEAD - RD {+.1f}": "+20.5",
}


def test_every_number_is_the_one_computed_by_hand(tree):
    for asked, number in INLINES.items():
        text = f"It is <!--={asked}-->old<!--/-->."
        assert filled(text, tree) == f"It is <!--={asked}-->{number}<!--/-->.", asked
    elsewhere = {"interval", "p", "visible", "stratum", "share", "with-shares"}
    assert {asked.split()[0] for asked in INLINES} == INLINE.keys() - elsewhere


def test_intervals_and_p_are_those_of_the_ledger(tree):
    judged = ledger(records.read(paths.RESULTS / "classroom"))
    first = judged.loc["cb-lead-rd"]
    between = f"{first['low']:.2f} to {first['high']:.2f}"
    for what in ("cb-lead-rd", "CB LEAD - CB RD"):
        asked = f"interval classroom: {what}"
        assert f">{between}<" in filled(f"a <!--={asked}--><!--/-->", tree)
    p = "<0.0001" if first["p"] < 1e-4 else f"{first['p']:.4f}"
    assert f">{p}<" in filled("a <!--=p classroom: cb-lead-rd--><!--/-->", tree)
    visible = f"{first['visible']:.2f}"
    assert f">{visible}<" in filled("a <!--=visible classroom: cb-lead-rd--><!--/-->", tree)


def test_the_interval_of_one_seed_says_what_it_is_over(tree):
    records.merge(rows(range(1), 0.25), paths.RESULTS / "one")
    asked = "interval one: CB LEAD - CB RD"
    assert re.search(r">\S+ to \S+ over queries<", filled(f"a <!--={asked}--><!--/-->", tree))


def test_tables(tree):
    main = filled(BLOCK.format("main-table classroom"), tree)
    assert "| LEAD | 32.00 | 1.58 | 40.00 | 50.00 | 75.00 | 0.0000 | 37.80 |\n" in main
    judged = filled(BLOCK.format("ledger classroom: primary; Table 3"), tree)
    unmeasured = "holds: CB teacher - DE teacher: not measured"
    claim = f"| cb-lead-rd | primary | CB teacher: LEAD > RD | {unmeasured} | 10.00 | "
    assert claim in judged and judged.count("\n| cb-") == 4  # those that were run
    assert "Table 3" not in filled(BLOCK.format("ledger classroom: primary"), tree)
    gates = filled(BLOCK.format("gates classroom"), tree)
    assert "| CE teacher - DE teacher | the CE teacher | not measured |  |  | 2.00 |" in gates
    table = filled(BLOCK.format("table classroom: BM25 => words; CB LEAD"), tree)
    assert "| words | 7.00 | 1.58 | 50.00 |\n| CB LEAD | 32.00 | 1.58 | 50.00 |\n" in table
    twice = "(CB LEAD - CB RD) - (CB FD - CB RD) => a change"
    asked = f"differences classroom other: CB LEAD - CB RD => gain; {twice}; cb-rd-fd"
    both = filled(BLOCK.format(asked), tree)
    assert re.search(r"\| a change \| 20.00 \(\S+ to \S+\) \| 20.00 \(\S+ to \S+\) \|\n", both)
    assert re.search(r"\| gain \| 10.00 \(\S+ to \S+\) \| 10.00 \(\S+ to \S+\) \|\n", both)
    assert re.search(r"\| cb-rd-fd \| 10.00 \(.*\), holds \| 10.00 \(.*\), undecided \|\n", both)
    lengths = filled(BLOCK.format("tried lengths"), tree)
    assert "| 64 tokens | 25.38 |  |\n| 96 tokens | 40.00 | 3.00 1.25 |\n" in lengths
    settings = filled(BLOCK.format("settings classroom"), tree)
    assert "| distil | steps 150, learning_rate 0.0002, " in settings and "bf16" not in settings
    worlds = filled(BLOCK.format("worlds"), tree)
    assert re.search(r"drowned \| .* \| LEAD - RD \| 20.50 \| \S+ to \S+ \| 0.0155 \|", worlds)
    run = filled(BLOCK.format("coverage classroom"), tree)
    assert "\n| 5 | 1 of 4 | 5 | Weighted; Last; Skip |\n" in run
    assert "\n| 7 | 3 of 6 | 5 | linear RD; linear FD; linear LEAD |\n" in run
    others = {"table", "differences", "tried", "settings", "figure", "worlds", "conditions"}
    assert set(BLOCKS) == {"main-table", "ledger", "gates", "strata", "coverage"} | others


def test_the_coverage_tells_rows_with_fewer_seeds(tree):
    found = records.read(paths.RESULTS / "classroom")
    found["CB RD"] = found["CB RD"][:3]
    del found["student"]
    rows = {"2": ("CB LEAD", "larger LEAD"), "6": ("CB RD", "CB LEAD", "K=5"), "9": ("PROD",)}
    table = coverage(found, rows)
    assert [tuple(line) for line in table.itertuples()] == [
        ("2", "1 of 2", "5", "larger LEAD"),
        ("6", "2 of 3", "3 to 5", "K=5"),
        ("9", "0 of 1", "", "PROD"),
    ]


def test_a_figure_is_drawn_where_its_records_changed(tree):
    drawn = []

    def draw(found):
        drawn.append(sum(map(len, found.values())))
        return plt.subplots()[1]

    page = tree / "docs" / "findings.md"
    text = BLOCK.format("figure classroom: bars, What it shows")
    for seeds in (range(5), range(5), range(6)):
        records.merge(rows(seeds), paths.RESULTS / "classroom")
        written = report.fill(text, page, Source({"bars": draw}))
        assert "\n![What it shows](../data/results/classroom/bars.png)\n" in written
    assert drawn == [30, 36]
    with Image.open(paths.RESULTS / "classroom" / "bars.png") as image:
        assert image.size[0] > 100


def test_pages_are_written_all_or_none(tree):
    (tree / "README.md").write_text("Now <!--=mean classroom: CB LEAD-->1<!--/-->.\n")
    (tree / "docs").mkdir()
    broken = tree / "docs" / "findings.md"
    broken.write_text(
        "\n\nNow <!--=mean classroom: CB LEAD--><!--/--> <!--=mean moon: X--><!--/-->"
    )
    with pytest.raises(ValueError, match=r"docs/findings.md, line 3: scale 'moon' has no records"):
        report.write_pages()
    assert "-->1<!--" in (tree / "README.md").read_text()
    broken.unlink()
    assert report.write_pages() == [tree / "README.md"]
    assert (tree / "README.md").read_text() == "Now <!--=mean classroom: CB LEAD-->32.00<!--/-->.\n"
    assert report.write_pages() == []


def test_markers_in_code_are_left_alone(tree):
    text = "`<!--=mean moon: X-->1<!--/-->`\n\n```\n<!-- report: nothing -->\n```\n"
    assert filled(text, tree) == text


WRONG = {
    "a <!--=median classroom: CB LEAD--><!--/-->": "generates 'median': use one of mean, sd, ",
    BLOCK.format("chart classroom"): "generates 'chart': use one of main-table, ledger, ",
    "a <!--=mean moon: CB LEAD--><!--/-->": "'moon' has no records: there are classroom, other",
    "a <!--=mean classroom: CD LEAD--><!--/-->": "'CD LEAD' has no records at classroom: there are",
    "a <!--=mean classroom: CB LEAD, R@7--><!--/-->": "no measure 'R@7': use one of RR@10, ",
    "a <!--=mean other: CB LEAD, seed 4--><!--/-->": "no record with seed 4: there are 0, 1",
    "a <!--=difference classroom: CB LEAD - LEAD--><!--/-->": "experiment 'LEAD' has no records",
    "a <!--=difference classroom: (CB LEAD - CB RD) - (CB LEAD - RD)--><!--/-->": "'RD' has no",
    "a <!--=difference other: CB LEAD - CB RD, seed 4--><!--/-->": "other has no record of",
    "a <!--=verdict classroom: cb-lead--><!--/-->": "claim 'cb-lead' is unknown: use A - B",
    "a <!--=p classroom: joint--><!--/-->": "claim 'joint' was not run at classroom",
    "a <!--=margin classroom: CB RD - CB LEAD--><!--/-->": "is positive, it is -10.00",
    "a <!--=gate classroom: CB--><!--/-->": "gate 'CB' is unknown: use one of DE teacher",
    "a <!--=count classroom: won--><!--/-->": "nothing counts 'won': use one of holds, ",
    "a <!--=paper cb--><!--/-->": "claim 'cb' is unknown",
    "a <!--=tried length: 64 tokens / MRR@10--><!--/-->": "'length' is unknown: there are lengths",
    "a <!--=tried lengths: 32 / MRR@10--><!--/-->": "setting '32' of 'lengths' is unknown",
    "a <!--=tried lengths: 64 tokens / R@1--><!--/-->": "measure 'R@1' of 'lengths' is unknown",
    "a <!--=bench maxsim: AVX3 / ratio--><!--/-->": "has no 'AVX3' in 'AVX3 / ratio': there is",
    "a <!--=bench minsim: AVX2--><!--/-->": "minsim.json",
    BLOCK.format("differences classroom: CB LEAD - CB RD => gain; CB LEAD - student => gain"): (
        "two rows are called 'gain'"
    ),
    BLOCK.format("figure classroom: pie"): "figure 'pie' is unknown: use one of bars",
    "<!--=mean classroom: CB LEAD--><!--/--> here": "a line begins with a marker",
    "- <!--=mean classroom: CB LEAD--><!--/--> here": "a line begins with a marker",
    "a <!--=mean classroom: CB LEAD-->32": "the marker <!--= is not closed",
    "<!-- report: main-table classroom -->\n": "the marker <!-- report is not closed",
    "a <!--/-->": "the marker <!--/--> is not closed or not opened",
}


def test_what_there_is_not_is_told_with_file_and_line(tree):
    for text, message in WRONG.items():
        with pytest.raises(ValueError, match="^README.md, line 2: ") as told:
            filled(f"First.\n{text}", tree, {"bars": None})
        assert message in str(told.value), text


# --- things tried


def test_things_tried_have_one_schema():
    lines = (paths.RESULTS / "tried.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    for each in told:
        assert tuple(each) == tried.FIELDS
        assert each["values"] and all(isinstance(x, int | float) for x in each["values"])
        texts = [each[field] for field in tried.FIELDS if field not in ("values", "seeds")]
        assert all(isinstance(text, str) for text in texts) and all(texts[:3])
        assert all(isinstance(seed, int) for seed in each["seeds"])
    keys = {(each["question"], each["setting"], each["measure"]) for each in told}
    assert len(keys) == len(told)
