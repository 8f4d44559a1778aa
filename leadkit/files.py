"""Files that are never half-written: a temporary name, then a rename; digests tell whether they are still what was written.

Locks: what two processes want is made by one, while the other waits.
"""

import errno
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from leadkit import processes

TO_DO = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EROFS: "make its folder writable",
    errno.EACCES: "make its folder writable",
    errno.EPERM: "make its folder writable",
}


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """12 hexadecimal digits over the JSON form of a value: the name of whatever is computed from it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """An error of the disk meanwhile becomes one sentence: what could not be written, why, what to do. Others pass."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, NotWritten) else error
        found = re.search(
            r"os error (\d+)", str(cause)
        )  # safetensors and tokenizers, which are Rust, only say it
        if not isinstance(cause, OSError) and not found:
            raise
        number = int(found[1]) if found else cause.errno
        why = os.strerror(number) if number else cause
        raise NotWritten(
            f"{path} could not be written ({why}) and is left as it was: {TO_DO.get(number, 'see to that')}, "
            "then ask for the same again"
        ) from cause


class NotWritten(OSError):
    """The disk is full or read-only, or what else keeps a file from being written."""


@contextmanager
def alone(lock: Path, what: object) -> Iterator[None]:
    """Hold the lock file. Where another process holds it for more than a second, say that it makes `what`, and wait for it."""
    with _told(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(lock).acquire(timeout=1)
        except Timeout:
            print(
                f"{what} is being made by another process or notebook: waiting for it",
                file=sys.stderr,
                flush=True,
            )
            held = FileLock(lock).acquire()
    with held:
        yield


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer(temporary path)` write, then rename to `path`. A failure (a full disk, ctrl-C) leaves `path` as it was.

    Of several processes only the main one writes.
    """
    if not processes.main():
        return
    with _told(path):
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
    """As `write`, for a writer that fills a folder. A folder that was not there appears whole; else file replaces file."""
    if not processes.main():
        return
    with _told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            made = Path(name) / folder.name
            made.mkdir()
            writer(made)
            if not folder.is_dir() or not any(folder.iterdir()):
                made.replace(folder)
                return
            for file in [path for path in made.rglob("*") if path.is_file()]:
                target = folder / file.relative_to(made)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


def write_json(path: Path, value: object) -> None:
    write(
        path,
        lambda temporary: temporary.write_text(
            json.dumps(value, indent=1 if len(str(value)) < 20_000 else None) + "\n"
        ),
    )


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, lambda temporary: save_file(contiguous, temporary))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
