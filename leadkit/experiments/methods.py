"""The distillation methods by name.

To add one, write a subclass of `Method` in a module of its own and name it in `METHODS`.
"""

from leadkit.experiments.deep_supervision import (
    DeepLabel,
    DeepResponse,
    DeepSoftResponse,
    Response,
    SoftResponse,
    TemperedResponse,
)
from leadkit.experiments.label_smoothing import SmoothAlone, SmoothLabel, SmoothLEAD
from leadkit.experiments.margin_mse import MarginMSE
from leadkit.experiments.method import Method
from leadkit.experiments.own_passages import LabelOnOwn, OwnPassages, ResponseOnOwn
from leadkit.experiments.paper_methods import FD, LEAD, RD, Alone
from leadkit.experiments.state_matching import StateMatching

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(Alone, RD, FD, LEAD, MarginMSE, StateMatching),
        *(DeepLabel, DeepResponse, DeepSoftResponse),
        *(Response, SoftResponse, TemperedResponse),
        *(SmoothLabel, SmoothAlone, SmoothLEAD),
        *(OwnPassages, LabelOnOwn, ResponseOnOwn),
    )
}


def method(name: str) -> type[Method]:
    """The class of a method. ValueError for an unknown one."""
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown: use one of {', '.join(METHODS)}")
    return METHODS[name]
