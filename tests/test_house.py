"""The house: imports point one way, modules fit one sitting, every folder has one place."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "leadkit"
# A module imports from its own group or from an earlier one, never from a later one.
GROUPS = (
    ("scores", "selection", "losses", "companion_losses"),
    ("paths", "processes", "hardware", "files", "config"),
    ("models",),
    ("data",),
    ("training",),
    ("retrieval",),
    ("experiments",),
    ("results",),
    ("lessons",),
    (
        "inventory",
        "doctor",
        "cards",
        "export",
        "commands",
        "result_commands",
        "__main__",
        "leadkit",
    ),
)
LONGEST = 250  # lines of a module


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports, inside functions too, but not for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known.keys() or {node.module}
    return found & known.keys()


def group(module: str) -> int:
    """The place of a module's group."""
    first = module.split(".")[1] if "." in module else module
    return next(place for place, names in enumerate(GROUPS) if first in names)


def test_imports_point_one_way_and_in_no_circle():
    known = modules()
    graph = {name: imports(path, known) for name, path in known.items()}
    upward = [
        f"{importing} (group {group(importing)}) imports {imported} (group {group(imported)})"
        for importing, each in graph.items()
        for imported in each
        if group(imported) > group(importing)
    ]
    assert not upward, upward
    assert len(list(TopologicalSorter(graph).static_order())) == len(known) > 80  # else: CycleError


def test_a_module_fits_one_sitting():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_folders_stand_in_paths_alone():
    for name, path in modules().items():
        assert name == "leadkit.paths" or "__file__" not in path.read_text(), name


def test_the_graph_sees_what_it_must(tmp_path):
    """A violation would be seen: inside a function, of a name, of a module."""
    known = modules()
    (tmp_path / "a.py").write_text(
        "def f():\n    from leadkit.lessons import site\n\nimport leadkit.results.records\n"
        "from leadkit.models.tower import Tower\n"
    )
    seen = {"leadkit.lessons.site", "leadkit.results.records", "leadkit.models.tower"}
    assert imports(tmp_path / "a.py", known) == seen
    assert (
        group("leadkit.lessons.site") > group("leadkit.experiments.store") > group("leadkit.files")
    )
