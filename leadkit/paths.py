"""Every folder that leadkit reads or writes.

What is shipped is read in the checkout, or in an installed package. What is computed is written
below HOME: the checkout, or the working folder where there is no checkout or it is read-only;
LEADKIT_HOME names another one.
"""

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parent  # the checkout, where there is one
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()


def _home() -> Path:
    named = os.environ.get("LEADKIT_HOME")
    if named:
        return Path(named).expanduser().absolute()
    return ROOT if IS_CHECKOUT and os.access(ROOT, os.W_OK) else Path.cwd()


HOME = _home()
SHIPPED = ROOT / "data" if IS_CHECKOUT else PACKAGE / "shipped"
NOTEBOOKS = ROOT / "notebooks"
RUNS = HOME / "runs"  # finished and unfinished stages
PYTHON_DOCS = SHIPPED / "python-docs"  # the embedded collection
MODELS = SHIPPED / "models"  # the miniature BERTs
RESULTS = SHIPPED / "results"  # committed records
CACHE = Path(os.environ.get("LEADKIT_CACHE", HOME / "data" / "cache")).expanduser()


def restore(part: str) -> str:
    """The command that brings back a part of what is shipped."""
    if IS_CHECKOUT:
        return f"git -C {ROOT} restore data/{part}"
    return f"{sys.executable} -m pip install --force-reinstall --no-deps leadkit"
