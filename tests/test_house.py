"""The house: which module may import which, how long one may be, where folders are named."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from leadkit import paths

PACKAGE = paths.ROOT / "leadkit"
LONGEST = 250  # lines of a module

# From the ground up: a module imports from its own line and the lines before it.
WINGS = {
    "the paper": "scores selection losses companion_losses",
    "the ground": "paths processes hardware files config",
    "models": "models",
    "data": "data",
    "training": "training",
    "retrieval": "retrieval",
    "experiments": "experiments",
    "results": "results",
    "lessons": "lessons",
    "the door": (
        "inventory doctor cards export commands class_commands own_commands result_commands "
        "__main__"
    ),
}
ORDER = list(WINGS)
WING_OF = {name: wing for wing, names in WINGS.items() for name in names.split()}


def module_name(path: Path) -> str:
    """leadkit/models/tower.py -> leadkit.models.tower, leadkit/models/__init__.py -> its folder."""
    parts = ("leadkit", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def wing(module: str) -> str:
    """The line of a module; its part behind "leadkit." decides."""
    part = module.split(".")[1]
    assert part in WING_OF, f"{module} belongs to no wing: name it in tests/test_house.py"
    return WING_OF[part]


def imported(module: str, source: str) -> set[str]:
    """The modules of leadkit that a module imports anywhere, inside its functions too."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            # `from leadkit import paths` imports a module, `from leadkit.files import write` not.
            names |= {
                f"{start}.{a.name}" if f"{start}.{a.name}" in FILES else start for a in node.names
            }
    return {name for name in names if name.startswith("leadkit.") and name in FILES} - {module}


def graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports. leadkit itself only names what others define."""
    sources = {name: path.read_text() for name, path in FILES.items() if name != "leadkit"}
    return {name: imported(name, source) for name, source in sources.items()}


def test_imports_point_one_way():
    upwards = [
        f"{module} ({wing(module)}) imports {other} ({wing(other)})"
        for module, others in graph().items()
        for other in sorted(others)
        if ORDER.index(wing(other)) > ORDER.index(wing(module))
    ]
    assert not upwards, "\n".join(["imports that point upwards in the house:", *upwards])


def test_the_imports_have_no_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        circle = " imports ".join(f"{name} ({wing(name)})" for name in reversed(error.args[1]))
        raise AssertionError(circle) from None


def test_the_graph_is_read():
    """What the order rests on: every module, and imports of each form."""
    edges = graph()
    assert len(edges) > 60 and sum(map(len, edges.values())) > 150
    assert "leadkit.losses" in edges["leadkit.companion_losses"]  # from a module
    assert "leadkit.paths" in edges["leadkit.models.names"]  # from the package
    assert "leadkit.experiments.sweep" in edges["leadkit.commands"]  # inside a function
    example = "import leadkit.files\nfrom . import config\nfrom .models.tower import Tower"
    want = {"leadkit.files", "leadkit.config", "leadkit.models.tower"}
    assert imported("leadkit.losses", example) == want


def test_the_tree_names_every_module():
    """docs/tree.md, down to the modules of a wing; deeper folders stand for their modules."""
    page = (paths.ROOT / "docs" / "tree.md").read_text().partition("## The package")[2]
    named, folder = set(), Path()
    for indent, name in re.findall(r"^( *)([a-z_0-9]+(?:\.py|/)) ", page, re.MULTILINE):
        folder = folder if indent else Path(name) if name.endswith("/") else Path()
        named |= {folder / name} if name.endswith(".py") else set()
    files = {path.relative_to(PACKAGE) for path in FILES.values() if path.name != "__init__.py"}
    assert named == {path for path in files if len(path.parts) <= 2}


def test_modules_fit_one_sitting():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert not long, f"modules of more than {LONGEST} lines: {long}"


def test_folders_are_named_once():
    """paths.py alone asks where it stands, so that a test or a user can move every folder there."""
    found = [
        f"{name}, line {number}: {line.strip()}"
        for name, path in FILES.items()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if "__file__" in line and name != "leadkit.paths"
    ]
    assert not found, "\n".join(found)
