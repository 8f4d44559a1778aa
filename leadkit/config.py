"""The scales: every number that decides a result, in one place, the paper's value beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from leadkit.hardware import BF16
from leadkit.losses import check_temperature, check_variant


def added(default: Any) -> Any:
    """A dataclass field that came later: at this default it leaves old keys and records valid."""
    return field(default=default, metadata={"added": True})


# The hub's name; read from a package where that is installed (leadkit/models/packaged.py)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Data:
    """What a batch holds."""

    collection: str = "python-docs"  # paper: MS MARCO passage and document
    query_tokens: int = 24  # paper: 32
    passage_tokens: int = 96  # paper: 128-256 (released scripts; PROD: 144)
    batch: int = 32  # queries; paper: not said
    passages: int = 2  # passages per query, one positive; paper: not said
    negatives: int = 100  # mined per query; paper: 100
    # Of a CE's pair; its passages are cut to what the longest query leaves. 0: not cut; paper: not
    # said, PROD: 160
    pair_tokens: int = added(0)

    def __post_init__(self) -> None:
        for name, value in {"batch": self.batch, "passages": self.passages}.items():
            if value < 1:
                raise ValueError(f"data.{name} is {value}: at least 1 is needed")


@dataclass(frozen=True)
class Schedule:
    """Optimisation of one training: AdamW, linear warm-up and decay, clipping (section 4.2.2)."""

    steps: int
    learning_rate: float = 2e-5  # paper: 2e-5 (released scripts)
    warmup: float = 0.1  # fraction of the steps; paper: not said
    clip: float = 2.0  # paper: 2.0 (released scripts)
    weight_decay: float = 0.01  # paper: 0 (released scripts)
    accumulate: int = added(1)  # batches of a step; paper: 1, with a CE 10 (released scripts)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: at least one is needed")
        if not self.learning_rate >= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: it must not be negative")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup}: it is a share of the steps, from 0 to 1")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}: a step takes at least one batch")

    def rate(self, step: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        warm = max(1, round(self.warmup * self.steps))
        rising = (step + 1) / warm
        falling = (self.steps - step) / max(1, self.steps - warm)
        return self.learning_rate * min(rising, falling)


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
    layer_weight: float = added(1.0)  # of L_lyr in the total, Eq. (12); paper: 1
    # Give the scores of every layer the spread of the final ones, so that no layer feature is flat
    even_spread: bool = added(False)  # paper: no

    def __post_init__(self) -> None:
        check_variant(self.variant)
        check_temperature("tau_d", self.tau_d)
        check_temperature("tau_l", self.tau_l)
        if not self.layer_weight >= 0:
            raise ValueError(f"layer_weight is {self.layer_weight}: it must not be negative")


@dataclass(frozen=True)
class CrossStart:
    """How a CE teacher starts from the trained CB teacher. All of it is ours."""

    batch: int = 8  # queries
    passages: int = 8  # of each query
    easy: float = 1 / 3  # of the training: random negatives, then mined ones
    fade: float = 0.8  # of the training: the CB is listened to, less and less

    def __post_init__(self) -> None:
        if not 0 <= self.easy < 1:
            raise ValueError(f"easy is {self.easy}: it must be at least 0 and below 1")
        if not 0 < self.fade <= 1:
            raise ValueError(f"fade is {self.fade}: it must be above 0 and at most 1")


@dataclass(frozen=True)
class Scale:
    """One machine's worth of experiment."""

    name: str
    teacher_encoder: str  # paper: coCondenser, 12 layers
    student_encoder: str  # paper: DistilBERT, 6 layers
    # The larger pair has this encoder as teacher and teacher_encoder as student; paper: 24 layers
    larger_encoder: str  # paper: ERNIE-2.0-large
    data: Data
    warm_up: Schedule  # of the 12DE that mines; paper: 20,000 steps
    teacher: Schedule  # of the teacher on mined negatives; paper: 20,000 steps
    student: Schedule  # of the student on mined negatives; paper: 20,000 steps
    distil: Schedule  # paper: 50,000 steps
    lead: Lead = Lead()
    scaled: bool = True  # scores times the architecture's own factor; paper: raw scores
    dropout: float = 0.0  # paper: not said; released scripts: 0.1
    rerank: int = 100  # of the DE teacher's passages; paper: 1,000 (passages), 100 (documents)
    depth: int = 1000  # passages in a run; paper: 1,000
    bf16: bool = False  # encoders compute in bfloat16; paper: not said
    # Of DE towers: "mean" for encoders that were trained so; paper: [CLS]
    pooling: str = added("cls")
    cross_start: CrossStart | None = None  # of a CE teacher; None: from its encoder, as any other
    # "teacher CE", "distil CE", ...: the schedule with a teacher of this architecture; "larger": of
    # the larger pair. By default those above
    own: Mapping[str, Schedule] = field(default_factory=dict)
    # Table 8's students by row, of the larger pair; by default our miniatures, of the smaller pair
    starts: Mapping[str, str] = field(default_factory=dict)
    prod_published: bool = False  # PROD has its authors' encoders, batches and schedules

    def __post_init__(self) -> None:
        if self.pooling not in ("cls", "mean"):
            raise ValueError(f"pooling is {self.pooling!r}: use 'cls' or 'mean'")

    def schedule(self, training: str, *who: str) -> Schedule:
        """The schedule of "warm_up", "teacher", "student" or "distil"; who: as in `own`."""
        chosen: Schedule = getattr(self, training)
        return self.own.get(" ".join((training, *who)), chosen)


_scripts = partial(Schedule, weight_decay=0.0)  # the released scripts


def _miniatures(name: str, data: Data, **settings: Any) -> Scale:
    return Scale(name, "bert-12x128", "bert-6x128", "stacked:24:bert-12x128", data, **settings)


SCALES = {
    "smoke": _miniatures(
        "smoke",
        Data("python-docs:smoke", query_tokens=16, passage_tokens=32, batch=8),
        warm_up=Schedule(20, 1e-4),
        teacher=Schedule(40, 3e-4),
        student=Schedule(20, 1e-4),
        distil=Schedule(10, 1e-4),
        rerank=20,
    ),
    "classroom": _miniatures(
        "classroom",
        Data(),
        warm_up=Schedule(150, 2e-4),
        teacher=Schedule(200, 3e-4),
        student=Schedule(150, 3e-4),
        distil=Schedule(150, 2e-4),
        bf16=BF16,
    ),
    # Real encoders: all six layers of all-MiniLM-L6-v2 teach, its second, fourth and sixth learn.
    "evening": Scale(
        "evening",
        MINILM,
        f"layers:2,4,6:{MINILM}",
        MINILM,  # of the larger pair, whose student then has all six layers
        Data(passage_tokens=64),
        warm_up=Schedule(100, 1e-4),
        teacher=Schedule(120, 1e-4),
        student=Schedule(120, 1e-4),
        distil=Schedule(300, 1e-4),
        lead=Lead(k=2, tau_l=1.0),
        bf16=BF16,
        cross_start=CrossStart(),
        own={"teacher CE": Schedule(480, 1e-4), "teacher larger CE": Schedule(480, 1e-4)},
    ),
    "gpu": _miniatures(
        "gpu",
        Data(query_tokens=32, passage_tokens=128, batch=64, passages=8),
        warm_up=Schedule(3000, 2e-4),
        teacher=Schedule(3000, 2e-4),
        student=Schedule(3000, 2e-4),
        distil=Schedule(6000, 2e-4),
        dropout=0.1,
        bf16=BF16,
    ),
    # Several GPUs, by torchrun; every field that no comment above gives is ours.
    "paper": Scale(
        "paper",
        "Luyu/co-condenser-marco",
        "distilbert-base-uncased",
        "nghuyong/ernie-2.0-large-en",
        Data("irds:msmarco-passage", query_tokens=32, passage_tokens=144, batch=64, passages=8),
        warm_up=_scripts(20_000),
        teacher=_scripts(20_000),
        student=_scripts(20_000),
        distil=_scripts(50_000),
        scaled=False,
        dropout=0.1,
        rerank=1000,
        bf16=BF16,
        own={
            "teacher CE": _scripts(20_000, 1e-5, accumulate=10),
            "teacher larger CB": _scripts(20_000, 1e-5),
            "distil DE": _scripts(50_000, 5e-5),
            "distil CE": _scripts(100_000, 5e-5, accumulate=10),
        },
        starts={
            "masked LM start": "nghuyong/ernie-2.0-base-en",
            "bottlenecked start": "lx865712528/master-base-pretrained-msmarco",
        },
        prod_published=True,
    ),
}
# The same on documents. Ours: batch, and how a pair of 544 tokens is cut to BERT's 512 positions.
SCALES["paper-document"] = replace(
    SCALES["paper"],
    name="paper-document",
    data=Data(
        "irds:msmarco-document",
        query_tokens=32,
        passage_tokens=512,
        batch=64,
        passages=8,
        pair_tokens=512,
    ),
    lead=Lead(k=6),
    rerank=100,
)


def scale(name: str, **changes: Any) -> Scale:
    """A scale by name, with fields changed. ValueError for an unknown one."""
    if name not in SCALES:
        raise ValueError(f"scale {name!r} is unknown: use one of {', '.join(SCALES)}")
    return replace(SCALES[name], **changes)
