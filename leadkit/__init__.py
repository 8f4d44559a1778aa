"""LEAD, liberal feature-based distillation for dense retrieval, reproduced.

`lead_loss` is the loss, `Pipeline` the paper's chain of trainings, `load` reads a saved retriever.
Each is imported when it is first used: `import leadkit` loads no other package, `lead_loss` torch
only.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leadkit.experiments.pipeline import Pipeline
    from leadkit.losses import lead_loss
    from leadkit.models.retrievers import load

__all__ = ["Pipeline", "lead_loss", "load"]

_MODULES = {
    "Pipeline": "leadkit.experiments.pipeline",
    "lead_loss": "leadkit.losses",
    "load": "leadkit.models.retrievers",
}


def __getattr__(name: str) -> object:
    """A public name, from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'leadkit' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
