"""A checkpoint's folder: its modules, and what of it would be lost without a word."""

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from leadkit.files import visible

# Names of weights that an encoder does without: poolers, the heads of pre-training, and blocks
# behind the last one that the config.json names.
SPARE = re.compile(
    r"pooler|^cls\.|lm_head|predictions|vocab_|^generator|^decoder\.|^head\.|position_ids"
    r"|layers?\.\d+\."
)


def check_folder(encoder: str, folder: Path) -> None:
    """FileNotFoundError for no weights, ValueError for damaged or missing ones."""
    weights = visible(folder, "*.safetensors")
    if not weights:
        raise FileNotFoundError(
            f"encoder {encoder!r}: the folder holds no weights (*.safetensors); others, "
            "pytorch_model.bin for one, are pickled and never read"
        )
    for path in weights:
        try:
            safe_open(path, "pt")
        except SafetensorError as error:
            raise ValueError(f"encoder {encoder!r}: {path.name} is damaged ({error})") from error
    files = {path.name for path in folder.iterdir()}
    for index in visible(folder, "*.safetensors.index.json"):
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"encoder {encoder!r}: {index.name} is damaged ({error!r:.200})"
            ) from error
        lost = [part for part in parts if part not in files]
        if lost:
            raise ValueError(
                f"encoder {encoder!r}: {index.name} names {str(lost[0])!r:.80}, which is no file "
                "of the folder"
            )


def check_heads(encoder: str, folder: Path, head: str) -> None:
    """ValueError for an adapter, or for modules with weights that `head` does not use."""
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"encoder {encoder!r}: its adapter (adapter_config.json) would be dropped; merge it "
            "into the weights first, by peft's merge_and_unload"
        )
    # A retriever that leadkit saved says its head itself: `load` reads it, `distil` asks for it.
    if not head and not (folder / "retriever.json").is_file():
        for module in weighted_modules(folder):
            raise _dropped(encoder, module)


def weighted_modules(folder: Path) -> list[str]:
    """The folders of sentence-transformers' modules that have weights, but for the encoder's."""
    return [
        module["path"]
        for module in modules(folder)
        if module["path"] and not module["type"].endswith("Transformer")
        if any((folder / module["path"] / name).is_file() for name in WEIGHTS)
    ]


WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def modules(folder: Path) -> list[dict]:
    """The modules that sentence-transformers lists in a folder; none where it has no such list.

    ValueError for a damaged list.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [{"path": str(each["path"]), "type": str(each["type"])} for each in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r:.200})") from error


def check_names(encoder: str, report: dict, head: str) -> None:
    """Compare transformers' report on the names of weights with what is used of them.

    ValueError for weights that are missing, or that are a head and would be dropped.
    """
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    spare = sorted(name for name in report["unexpected_keys"] if not SPARE.search(name))
    if missing:
        instead = f"; it holds {spare[0]} and the like instead" if spare else ""
        raise ValueError(
            f"encoder {encoder!r}: its weights lack {len(missing)} tensors of its config.json, "
            f"first {missing[0]}{instead}"
        )
    if spare and not head:
        raise _dropped(encoder, spare[0])


def _dropped(encoder: str, name: str) -> ValueError:
    return ValueError(
        f"encoder {encoder!r}: its head ({name}) would be dropped; an encoder has none. Use a "
        "checkpoint without a head, or this one with its head: as a ready teacher"
    )
