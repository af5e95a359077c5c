"""Reads a config group field by field and knows what was never read."""

from collections.abc import Iterable, Mapping
from typing import Any


class Reader:
    """A config group that remembers what has been read of it.

    Args:
        config: the group; groups inside it are mappings too.
        path: its name in messages.
    """

    def __init__(self, config: Mapping[str, Any], path: str = "config"):
        self._config = config
        self._path = path
        self._groups: dict[str, Reader] = {}
        self._unread = set(config)

    def __getattr__(self, name: str) -> Any:
        """The field's value, or a Reader of the group of that name."""
        if name not in self._config:
            raise ValueError(f"{self._path}.{name} is missing; see configs/base.py")
        self._unread.discard(name)
        value = self._config[name]
        if isinstance(value, Mapping) or hasattr(value, "items"):
            return self._groups.setdefault(name, Reader(value, f"{self._path}.{name}"))
        return value

    def choice(self, name: str, table: Mapping[str, Any]) -> Any:
        """The entry of table that the field names."""
        value = getattr(self, name)
        if value not in table:
            raise ValueError(
                f"{self._path}.{name}={value!r} must be one of {', '.join(table)}"
            )
        return table[value]

    def one_of(self, name: str, names: Iterable[str]) -> str:
        """The field's value, which must be one of the names."""
        return self.choice(name, {name: name for name in names})

    def all(self) -> dict[str, Any]:
        """Every field of the group, by name."""
        return {name: getattr(self, name) for name in self._config}

    def unread(self) -> list[str]:
        """Names of the fields that nothing has read."""
        inner = [name for group in self._groups.values() for name in group.unread()]
        return sorted(f"{self._path}.{name}" for name in self._unread) + inner
