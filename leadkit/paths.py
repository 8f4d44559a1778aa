"""Every folder that leadkit reads or writes."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent  # the checkout
NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "runs"  # finished and unfinished stages
PYTHON_DOCS = ROOT / "data" / "python-docs"  # the embedded collection
MODELS = ROOT / "data" / "models"  # the miniature BERTs
RESULTS = ROOT / "data" / "results"  # committed records
CACHE = Path(os.environ.get("LEADKIT_CACHE", ROOT / "data" / "cache"))  # collections and tokens
