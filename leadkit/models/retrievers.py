"""The architectures by name, and retrievers from towers and folders."""

from pathlib import Path

from safetensors import SafetensorError

from leadkit.files import read_tensors
from leadkit.models.checkpoints import adopt
from leadkit.models.colbert import ColBERT
from leadkit.models.cross_encoder import CrossEncoder
from leadkit.models.dual_encoder import DualEncoder
from leadkit.models.retriever import Retriever
from leadkit.models.tower import Tower, saved_tower

ARCHITECTURES: dict[str, type[Retriever]] = {
    cls.architecture: cls for cls in (DualEncoder, ColBERT, CrossEncoder)
}


def architecture(name: str) -> type[Retriever]:
    """The class of an architecture. ValueError for an unknown one."""
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture {name!r} is unknown: use one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build(tower: Tower) -> Retriever:
    """A retriever on its tower's encoder, untrained but for its checkpoint's head, if any.

    ValueError for an unknown architecture. Raises as `checkpoints.adopt`.
    """
    retriever = architecture(tower.architecture)(tower)
    if tower.head:
        adopt(retriever)
    return retriever


def load(folder: str | Path) -> Retriever:
    """A retriever saved by `Retriever.save`, ready to answer. Raises as `saved_tower`."""
    folder = Path(folder).absolute()  # a bare name could be that of a shipped encoder
    tower = saved_tower(folder / "retriever.json", str(folder))
    retriever = architecture(tower.architecture)(tower)
    head = folder / "head" / "head.safetensors"
    wanted = [name for name in retriever.state_dict() if not name.startswith("encoder.")]
    if wanted and not head.exists():
        raise FileNotFoundError(f"{head} is missing: it holds {', '.join(sorted(wanted))}")
    if wanted:
        encoder = retriever.encoder.state_dict(prefix="encoder.")
        try:
            retriever.load_state_dict(encoder | read_tensors(head))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{head} is damaged or of another retriever ({error})") from error
    return retriever.eval()
