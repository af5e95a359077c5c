"""A run's folder: which config it belongs to."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

CONFIG_FILE = "config.json"


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes the folder this config's, or checks that it already is.

    Args:
        workdir: made if absent.
        config: nested mappings of plain values.

    Raises:
        ValueError: where the folder is another config's, with the difference.
        OSError: where it cannot be written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / CONFIG_FILE
    text = json.dumps(config, indent=2, sort_keys=True)
    if file.exists():
        changed = differences(read_config(workdir), as_tuples(json.loads(text)))
        if changed:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(changed)}): "
                "give the old values, or another --workdir"
            )
        return
    if (workdir / "checkpoints").exists():
        raise ValueError(
            f"{workdir} has checkpoints but no {CONFIG_FILE}; use another --workdir"
        )
    partial = file.with_suffix(".partial")
    partial.write_text(text + "\n")
    os.replace(partial, file)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config that the folder's run was started with.

    Raises:
        FileNotFoundError: where there is no run.
        ValueError: where its config is not readable.
    """
    file = workdir / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} has no {CONFIG_FILE}: it is not the folder of a run; give "
            "--workdir=DIR of one that logo_jax.main has trained"
        )
    try:
        return as_tuples(json.loads(file.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not readable as JSON: {error}") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two configs, a line each.

    >>> differences({"a": {"b": 1}, "c": 0}, {"a": {"b": 2}, "c": 0})
    ['a.b: 1 -> 2']
    """
    before, after = dict(flatten(old)), dict(flatten(new))
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before | after)
        if before.get(name, "absent") != after.get(name, "absent")
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Fields by dotted name."""
    fields = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        nested = isinstance(value, Mapping)
        fields += flatten(value, f"{path}.") if nested else [(path, value)]
    return fields


def as_tuples(value: Any) -> Any:
    """JSON's lists as tuples, as configs have them."""
    if isinstance(value, Mapping):
        return {name: as_tuples(field) for name, field in value.items()}
    if isinstance(value, list):
        return tuple(as_tuples(item) for item in value)
    return value
