"""Files that are never half-written: a temporary name, then a rename; digests tell whether they are still what was written."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from leadkit import processes


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """12 hexadecimal digits over the JSON form of a value: the name of whatever is computed from it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer(temporary path)` write, then rename to `path`. A failure (a full disk, ctrl-C) leaves `path` as it was.

    Of several processes only the main one writes.
    """
    if not processes.main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        writer(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(f"{path} could not be written ({why}); it is left as it was") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(folder: Path, writer: Callable[[Path], object]) -> None:
    """As `write`, for a writer that fills a folder: its files move to `folder` when all are written."""
    if not processes.main():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            writer(Path(name))
            for file in [path for path in Path(name).rglob("*") if path.is_file()]:
                target = folder / file.relative_to(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(f"{folder} could not be written ({why}); it is left as it was") from error


def write_json(path: Path, value: object) -> None:
    write(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1 if len(str(value)) < 20_000 else None) + "\n"))


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, lambda temporary: save_file(contiguous, temporary))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
