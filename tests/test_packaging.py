"""The files around the code agree with each other; the committed notebooks can be compared."""

import ast
import importlib.util
import json
import re
import subprocess
import symtable
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import leadkit
from leadkit import losses
from leadkit.experiments import pipeline, workers
from leadkit.models import retrievers

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))
CONDA_NAMES = {"pytorch-gpu": "torch"}  # the others differ in case, - and _ alone
IMPORT_NAMES = {
    "bs4": "beautifulsoup4",
    "faiss": "faiss-cpu",
    "pil": "pillow",
    "stemmer": "pystemmer",
}
EXTRAS = {
    "models/checkpoints.py": "export",  # module or wing -> the extra that it needs
    "lessons": "lessons",
    "results/sources.py": "lessons",  # draws figures
    "export.py": "export",
    "cards.py": "export",
}
IGNORED_OUTPUT = {
    "versions",
    "timing",
    "training-log",
    "widget",
    "processor",
}  # one of these is the reason to ignore an output


def declared(*extras: str) -> dict[str, SpecifierSet]:
    """Canonical name -> bounds of the dependencies and of these extras."""
    lines = PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]
    bounds = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}
    if "leadkit" in bounds:  # an extra that includes others
        del bounds["leadkit"]
        bounds |= declared("lessons", "export")
    return bounds


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if names.returncode:
        pytest.skip("not a git checkout")
    return [path for name in names.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


# --- dependencies -------------------------------------------------------------------------------


def test_environment_has_the_bounds_of_pyproject():
    file = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert file["channels"] == ["conda-forge", "nodefaults"]
    lines = [line for line in file["dependencies"] if isinstance(line, str)]
    lines += [
        line for entry in file["dependencies"] if isinstance(entry, dict) for line in entry["pip"]
    ]
    found = {}
    for name, specifier in (re.fullmatch(r"([\w-]+) ?(.*)", line).groups() for line in lines):
        found[canonicalize_name(CONDA_NAMES.get(name, name))] = SpecifierSet(specifier)
    assert found.pop("python") == SpecifierSet(PROJECT["requires-python"])
    found.pop("pip")
    assert found == declared("gpu", "dev")


def test_environment_is_generated():
    spec = importlib.util.spec_from_file_location("bounds", ROOT / ".ci" / "bounds.py")
    bounds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bounds)
    text = (ROOT / "environment.yml").read_text()
    assert bounds.generated(text) == text
    older = re.sub(r" >=[\d.]+,", " >=0.0.1,", text)
    assert older != text and bounds.generated(older) == text


def test_every_line_of_the_environment_has_a_purpose():
    lines = [
        line
        for line in (ROOT / "environment.yml").read_text().splitlines()
        if line.lstrip().startswith("- ")
    ]
    assert [line for line in lines if not re.search(r"  # \w|pip:$", line)] == []


def test_constraints_pin_every_dependency_within_its_bounds():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert [
        line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)
    ] == []  # no URL, no +cpu
    pins = {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines)
    }
    assert len(pins) == len(lines)
    assert pins["torch"] == "2.13.0"
    for name, bounds in declared("cpu", "gpu", "evening", "dev", "browser").items():
        assert pins[name] in bounds, name


def imported(path: Path) -> set[str]:
    """Canonical names of the packages that a module imports, the standard library left out."""
    tree, names = ast.parse(path.read_text()), set()
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]  # imported by type checkers alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "leadkit")
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"leadkit"}
    return {IMPORT_NAMES.get(name, name) for name in map(canonicalize_name, tops)}


def test_every_import_is_declared():
    """The lessons may need their extra, the export its own; everything else runs on the core."""
    package = ROOT / "leadkit"
    undeclared = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        extras = [extra for part, extra in EXTRAS.items() if name.startswith(part)]
        undeclared[name] = imported(path) - set(declared("cpu", *extras))
    assert {name: packages for name, packages in undeclared.items() if packages} == {}


def test_every_dependency_is_imported():
    used = set().union(*map(imported, (ROOT / "leadkit").rglob("*.py")))
    assert set(declared("lessons", "export")) - used == {"ipykernel", "jupyterlab"}


def test_only_dense_search_imports_faiss():
    modules = [path for path in (ROOT / "leadkit").rglob("*.py") if "faiss-cpu" in imported(path)]
    assert [path.name for path in modules] == ["dense.py"]


def test_the_loss_needs_torch_alone():
    """With every other dependency out of reach the loss can be imported and computed."""
    torchs = {canonicalize_name(Requirement(line).name) for line in requires("torch") or ()}
    packages = set(declared("cpu", "lessons", "export")) - torchs - {"torch"}
    names = {name: package for package, name in IMPORT_NAMES.items()}
    blocked = {names.get(package, package).replace("-", "_") for package in packages}
    code = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(blocked)!r}))  # importing one of them raises ImportError
before = set(sys.modules)
import leadkit
third = {{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names
assert third == {{"leadkit"}}, third
from leadkit import lead_loss
import torch
layers, final = torch.randn(2, 3, 4), torch.randn(3, 4)
print(lead_loss(layers, layers, final, final, torch.zeros(3, dtype=torch.long)).layer.item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 0.0


def test_public_names_are_those_of_their_modules():
    assert leadkit.load is retrievers.load
    assert leadkit.Pipeline is pipeline.Pipeline
    assert leadkit.lead_loss is losses.lead_loss
    assert set(leadkit.__all__) <= set(dir(leadkit))
    with pytest.raises(AttributeError, match="no attribute 'pipelines'"):
        leadkit.pipelines  # noqa: B018


@pytest.mark.parametrize(
    "first",
    [
        "import faiss; import torch",
        "import torch; import faiss",
        "import leadkit.retrieval.dense; import faiss",
    ],
)
def test_faiss_and_torch_live_in_one_process(first):
    search = (
        "import numpy; x = numpy.eye(4, dtype='f'); i = faiss.IndexFlatIP(4); i.add(x); "
        "print(i.search(x, 1)[1])"
    )
    product = "import torch; print((torch.ones(64, 64) @ torch.ones(64, 64)).sum().item())"
    command = [sys.executable, "-c", f"{first}; {search}; {product}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[[0]", "[1]", "[2]", "[3]]", "262144.0"]


# --- what runs it -------------------------------------------------------------------------------


def test_ci_checks_then_calls_the_test_command_of_the_readme():
    run = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make ([\w-]+)$", run, re.MULTILINE) == ["check", "test", "test-browser"]
    assert "\nmake test " in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_hooks_and_workflow_call_existing_targets():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    files = [ROOT / ".pre-commit-config.yaml", *(ROOT / ".github" / "workflows").glob("*.yml")]
    text = "".join(path.read_text() for path in files)
    called = set(re.findall(r"(?:entry|run): make ([\w-]+)", text))
    assert called == {"check", "test", "test-browser", "site"} <= targets


def test_workers_and_make_ask_for_the_same_memory():
    assert f"export GLIBC_TUNABLES := {workers.MEMORY}\n" in (ROOT / "Makefile").read_text()


def test_make_help_shows_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^ +make ([\w-]+) +\w", shown, re.MULTILINE) == targets


def test_the_tree_shows_every_wing_and_no_module_that_is_gone():
    text = re.split(r"^## .*$", (ROOT / "docs" / "tree.md").read_text(), flags=re.MULTILINE)[1]
    shown, wing = set(), ""
    for line in re.findall(r"^ *[\w/]+(?:/|\.py)(?= )", text, re.MULTILINE):
        if not line.startswith(" "):
            wing = line if line.endswith("/") else ""
        shown.add(line if line == wing else wing + line.strip())
    package = ROOT / "leadkit"
    assert [path for path in shown if not (package / path).exists()] == []
    assert {f"{path.parent.name}/" for path in package.glob("*/__init__.py")} <= shown


def test_links_between_pages_lead_somewhere():
    pages = [path for path in tracked() if path.suffix == ".md"]
    broken = set()
    for page in pages:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            if not (page.parent / link).exists():
                broken.add(f"{page.relative_to(ROOT)}: {link}")
    assert broken == set()


def test_pages_name_commands_and_imports_that_exist():
    pages = [path.read_text() for path in tracked() if path.suffix == ".md"]
    text = "\n".join(pages)
    sources = (ROOT / "leadkit").glob("*commands.py")
    commands = {
        node.name
        for source in sources
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    named = set(re.findall(r"-m leadkit ([a-z]+)", text))
    assert named - commands == set()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"[`\n]make ([a-z-]+)", text)) - targets == set()
    imports = re.findall(r"^(from leadkit[\w.]* import .*)$", text, re.MULTILINE)
    assert imports
    for line in imports:
        exec(line, {})


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


# --- what is committed --------------------------------------------------------------------------


def test_no_large_file_is_tracked():
    assert [path.name for path in tracked() if path.stat().st_size > 10 * 2**20] == []


def test_no_tracked_file_holds_an_absolute_development_path():
    pattern = re.compile(rb"/(work|root)/|/tm[p]/v\b|\.\./share[d]/")
    found = [
        path
        for path in tracked()
        if b"\0" not in (text := path.read_bytes()) and pattern.search(text)
    ]
    assert [str(path.relative_to(ROOT)) for path in found if path != ROOT / ".ci" / "run"] == []


def test_notebooks_are_numbered_without_a_gap():
    numbers = [int(path.name[:2]) for path in NOTEBOOKS if path.parent.name == "notebooks"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers, "no notebooks: nothing would be compared"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_can_be_compared(path):
    """nbval never compares a cell that has no execution count: each must have one, and no error."""
    cells = code_cells(path)
    source = {id(cell): "".join(cell["source"]) for cell in cells}
    tags = {id(cell): set(cell["metadata"].get("tags", ())) for cell in cells}
    assert cells
    assert [source[id(cell)] for cell in cells if not cell["execution_count"]] == [], "not executed"
    assert [source[id(cell)] for cell in cells if source[id(cell)].count("\n") >= 25] == [], (
        "more than 25 lines"
    )
    errors = [
        source[id(cell)]
        for cell in cells
        for out in cell["outputs"]
        if out["output_type"] == "error"
    ]
    assert errors == []
    assert [cell for cell in cells if "injected-parameters" in tags[id(cell)]] == []
    if path.parent.name == "notebooks":
        assert sum("parameters" in tags[id(cell)] for cell in cells) == 1
    for cell in cells:
        assert not tags[id(cell)] & {"nbval-skip", "nbval-check-output", "raises-exception"}, (
            source[id(cell)]
        )
        if "nbval-ignore-output" in tags[id(cell)]:
            assert tags[id(cell)] & IGNORED_OUTPUT, (
                f"says no reason to ignore its output:\n{source[id(cell)]}"
            )
        assert not re.search("NBVAL_(IGNORE_OUTPUT|SKIP|CHECK_OUTPUT)", source[id(cell)]), (
            "use a tag"
        )
    assert any(cell["outputs"] and "nbval-ignore-output" not in tags[id(cell)] for cell in cells), (
        "nothing is compared"
    )


@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if path.parent.name == "notebooks"],
    ids=lambda path: path.stem,
)
def test_exercises_leave_the_names_of_the_lesson_alone(path):
    """A widget goes on calling the lesson's functions, which look up names when called."""

    def bound(source: str) -> set[str]:
        return {
            symbol.get_name()
            for symbol in symtable.symtable(source, path.name, "exec").get_symbols()
            if symbol.is_assigned()
        }

    sources = ["".join(cell["source"]) for cell in code_cells(path)]
    asked = [source for source in sources if "your turn" in source]
    others = [source for source in sources if "your turn" not in source]
    assert asked and set().union(*map(bound, asked)) & set().union(*map(bound, others)) == set()


def test_the_loss_of_the_readme_runs():
    block = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    imports, loss = block.split("pipeline =")[0], block.split("# The loss alone")[1]
    names: dict = {}
    exec(f"{imports}\n#{loss}", names)
    assert names["loss"].weights.shape == (5, 32) and names["layers"].grad.abs().sum() > 0
