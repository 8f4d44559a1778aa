"""Identity: what decides the result of a stage, and nothing else.

A setting that is added to a finished class is declared with `added(default)`. It is left out of
descriptions and keys while it has that default, so everything computed before stays valid. Such a
default must never change.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from leadkit.config import added as added  # config and models declare settings too


def settings(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that belong to its identity, by name."""
    own = {f.name: getattr(value, f.name) for f in fields(value)}
    for f in fields(value):
        if f.metadata.get("added") and own[f.name] == f.default:
            del own[f.name]
    return own


def plain(value: Any, part: Callable[[Any], Any]) -> Any:
    """A value as JSON has it: a dataclass as its settings, with its `name` if its class has one.

    part: what makes a setting of a dataclass plain.
    """
    if not is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    name = getattr(type(value), "name", None)
    named = {"name": name} if isinstance(name, str) else {}
    return named | {key: part(each) for key, each in settings(value).items()}
