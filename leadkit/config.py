"""The scales: every number that a run depends on, in one place, the paper's value beside ours."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from leadkit.losses import check_temperature, check_variant
from leadkit.training.loop import Schedule

# Whether this machine multiplies bfloat16 itself; elsewhere it would be slower than float32.
BF16 = (
    torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cuda.is_available()
    else any(torch.cpu.get_capabilities().get(name) for name in ("amx_bf16", "avx512_bf16"))
)
RUNS = Path(__file__).parent.parent / "runs"


@dataclass(frozen=True)
class Data:
    """What a batch holds."""

    collection: str = "python-docs"  # paper: MS MARCO passage and document
    query_tokens: int = 24  # paper: 32
    passage_tokens: int = 96  # paper: 128-256 (released scripts; PROD: 144)
    batch: int = 32  # queries; paper: not said
    passages: int = 2  # passages per query, one positive; paper: not said
    negatives: int = 100  # mined per query; paper: 100


@dataclass(frozen=True)
class Lead:
    """LEAD's own settings (sections 3.3 and 3.4)."""

    k: int = 5  # selected layers; paper: 5 (passages), 6 (documents)
    strategy: str = "random"  # paper: random
    tau_d: float = 1.0  # distillation temperature; paper: 1 (released scripts)
    tau_l: float = 10.0  # layer selection temperature; paper: 10 (released scripts)
    joint: bool = True  # train the teacher too
    reweight: bool = True  # Eq. (7); False: 1 / K
    variant: str = "paper"  # or "released"

    def __post_init__(self) -> None:
        check_variant(self.variant)
        check_temperature("tau_d", self.tau_d)
        check_temperature("tau_l", self.tau_l)


@dataclass(frozen=True)
class Scale:
    """One machine's worth of experiment."""

    name: str
    teacher_encoder: str  # paper: coCondenser, 12 layers
    student_encoder: str  # paper: DistilBERT, 6 layers
    larger_encoder: str  # of the teacher of the larger pair, whose student has the teacher's; paper: ERNIE-2.0-large, 24 layers
    data: Data
    warm_up: Schedule  # of the 12DE that mines; paper: 20,000 steps
    teacher: Schedule  # of the teacher on mined negatives; paper: 20,000 steps
    student: Schedule  # of the student on mined negatives; paper: 20,000 steps
    distil: Schedule  # paper: 50,000 steps
    lead: Lead
    score_scale: dict[str, float]  # architecture -> factor on its scores; paper: 1
    dropout: float = 0.0  # paper: 0.1
    rerank: int = (
        100  # teacher re-ranks this many of the 12DE's; paper: 1,000 (passages), 100 (documents)
    )
    depth: int = 1000  # passages in a run; paper: 1,000
    bf16: bool = False  # encoders compute in bfloat16; paper: not said


SCALES = {
    "smoke": Scale(
        "smoke",
        "bert-12x128",
        "bert-6x128",
        "stacked:24:bert-12x128",
        Data("python-docs:smoke", 16, 32, batch=8),
        warm_up=Schedule(20, 1e-4),
        teacher=Schedule(40, 3e-4),
        student=Schedule(20, 1e-4),
        distil=Schedule(10, 1e-4),
        lead=Lead(),
        score_scale={"DE": 128**-0.5, "CB": 0.03, "CE": 1.0},
        rerank=20,
    ),
    "classroom": Scale(
        "classroom",
        "bert-12x128",
        "bert-6x128",
        "stacked:24:bert-12x128",
        Data(),
        warm_up=Schedule(150, 2e-4),
        teacher=Schedule(200, 3e-4),
        student=Schedule(150, 3e-4),
        distil=Schedule(150, 2e-4),
        lead=Lead(),
        score_scale={"DE": 128**-0.5, "CB": 0.03, "CE": 1.0},
        bf16=BF16,
    ),
    "classroom-short": Scale(  # LEAD's tables in three hours: fewer steps after the mining, shorter passages, fewer candidates
        "classroom-short",
        "bert-12x128",
        "bert-6x128",
        "stacked:24:bert-12x128",
        Data(passage_tokens=64),
        warm_up=Schedule(150, 2e-4),
        teacher=Schedule(80, 3e-4),
        student=Schedule(60, 3e-4),
        distil=Schedule(60, 2e-4),
        lead=Lead(),
        score_scale={"DE": 128**-0.5, "CB": 0.03, "CE": 1.0},
        rerank=20,
        bf16=BF16,
    ),
    "gpu": Scale(
        "gpu",
        "bert-12x128",
        "bert-6x128",
        "stacked:24:bert-12x128",
        Data(query_tokens=32, passage_tokens=128, batch=64, passages=8),
        warm_up=Schedule(3000, 2e-4),
        teacher=Schedule(3000, 2e-4),
        student=Schedule(3000, 2e-4),
        distil=Schedule(6000, 2e-4),
        lead=Lead(),
        score_scale={"DE": 128**-0.5, "CB": 0.03, "CE": 1.0},
        dropout=0.1,
        bf16=BF16,
    ),
    "paper": Scale(  # several GPUs, by torchrun; every field that no comment above gives is ours
        "paper",
        "Luyu/co-condenser-marco",
        "distilbert-base-uncased",
        "nghuyong/ernie-2.0-large-en",
        Data("irds:msmarco-passage", query_tokens=32, passage_tokens=144, batch=64, passages=8),
        warm_up=Schedule(20_000),
        teacher=Schedule(20_000),
        student=Schedule(20_000),
        distil=Schedule(50_000),
        lead=Lead(),
        score_scale={"DE": 1.0, "CB": 1.0, "CE": 1.0},
        dropout=0.1,
        rerank=1000,
        bf16=BF16,
    ),
}


def scale(name: str, **changes: object) -> Scale:
    """A scale by name, with fields changed. ValueError for an unknown one."""
    if name not in SCALES:
        raise ValueError(f"scale {name!r} is unknown: use one of {', '.join(SCALES)}")
    return replace(SCALES[name], **changes)
