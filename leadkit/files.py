"""Files that are never half-written, their digests, and locks between processes.

A file is written under a temporary name and then renamed.
"""

import errno
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from leadkit import processes

REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EROFS: "make its folder writable",
    errno.EACCES: "make its folder writable",
    errno.EPERM: "make its folder writable",
}
SHORT = 20_000  # characters; longer JSON is written on one line


class NotWritten(OSError):
    """A file or folder could not be written: the disk is full or read-only, for example."""


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest(path) for path in paths}


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match, sorted, but for those with a name that begins with a dot.

    Other systems leave such files beside the real ones: ._NAME, .DS_Store.
    """

    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.glob(pattern) if not is_hidden(path))


def fingerprint(value: object) -> str:
    """12 hexadecimal digits over the JSON form of a value; they name what is computed from it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence: what was not written, why, and what to do.

    Raises NotWritten; any other error passes.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, NotWritten) else error
        # safetensors and tokenizers are written in Rust and give the number in the text only.
        number_in_text = re.search(r"os error (\d+)", str(cause))
        if number_in_text:
            number = int(number_in_text[1])
        elif isinstance(cause, OSError):
            number = cause.errno or 0
        else:
            raise
        reason = os.strerror(number) if number else cause
        raise NotWritten(
            f"{path} could not be written ({reason}) and is left as it was: "
            f"{REMEDIES.get(number, 'see to that')}, then ask for the same again"
        ) from cause


@contextmanager
def alone(lock: Path, what: object) -> Iterator[None]:
    """Hold the lock file, so that one process makes `what` while the others wait for it.

    A process that waits for more than a second says what it waits for.
    """
    with _explained(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(lock).acquire(timeout=1)
        except Timeout:
            waiting = f"{what} is being made by another process or notebook: waiting for it"
            print(waiting, file=sys.stderr, flush=True)
            held = FileLock(lock).acquire()
    with held:
        yield


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer(temporary path)` write, then rename to `path`.

    A failure (a full disk, ctrl-C) leaves `path` as it was. Of several processes only the main
    one writes. Raises NotWritten.
    """
    if not processes.main():
        return
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            writer(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder(folder: Path, writer: Callable[[Path], object]) -> None:
    """As `write`, for a writer that fills a folder.

    A new or empty folder appears whole; in any other one, each file replaces the one of its name.
    """
    if not processes.main():
        return
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            filled = Path(name) / folder.name
            filled.mkdir()
            writer(filled)
            if not folder.is_dir() or not any(folder.iterdir()):
                filled.replace(folder)
                return
            for file in [path for path in filled.rglob("*") if path.is_file()]:
                target = folder / file.relative_to(filled)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON: indented where it is short, else on one line."""
    indent = 1 if len(str(value)) < SHORT else None
    text = json.dumps(value, indent=indent) + "\n"
    write(path, lambda temporary: temporary.write_text(text))


def write_lines(path: Path, values: Iterable[object]) -> None:
    """One line of JSON per value."""
    text = "".join(json.dumps(value) + "\n" for value in values)
    write(path, lambda temporary: temporary.write_text(text))


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors as safetensors."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, lambda temporary: save_file(contiguous, temporary))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file."""
    return load_file(path)
