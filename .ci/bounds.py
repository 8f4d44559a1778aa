"""Write pyproject.toml's bounds into environment.yml, which keeps its order and comments.

Run by `make environment`.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch-gpu"}  # PyPI's name -> conda-forge's, where they differ


def declared() -> dict[str, str]:
    """Package, in lower case as conda-forge has it -> bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    bounds = {"python": project["requires-python"]}
    for line in [*project["dependencies"], *(line for lines in extras for line in lines)]:
        name, specifier = re.match(r"([\w-]+)(?:\[.*\])?([^;]*)", line).groups()
        bounds[CONDA_NAMES.get(name, name.lower())] = specifier.strip()
    return bounds


def generated(text: str) -> str:
    """The text of environment.yml with these bounds. KeyError: a package is not declared."""
    bounds = declared()

    def line(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]} {bounds[match[2]]}{match[3]}"

    return re.sub(r"(?m)^( +- )([\w-]+) [<>=][^ ]*(.*)$", line, text)


if __name__ == "__main__":
    file = ROOT / "environment.yml"
    file.write_text(generated(file.read_text()))
