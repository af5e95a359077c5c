"""Config files of experiments and sweeps, installed with the package, found by name.

`--config=configs/quickstart.py` and `--config=quickstart` are the same file in any
working directory. In a clone of the repository, this folder is also linked as
`configs/`.
"""

import ast
import difflib
import importlib
import numbers
import pathlib
import runpy
import sys
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from logo_jax.configs import base
from logo_jax.storage.paths import local_path

FOLDER = pathlib.Path(__file__).parent
_SHARED = ("__init__", "base")  # files in it that are no experiments begin with these


def load(
    name: str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Returns the config of a file and a variant, with some fields changed.

    >>> load("cifar10_moco:logo", {"train.num_epochs": 50}).train.num_epochs
    50

    Args:
        name: FILE or FILE:VARIANT, with the file as in `find`. The function
            `get_config` of the file is called with the variant, if there is one. Or a
            config, as a ConfigDict or nested dicts, which is copied.
        overrides: new values by dotted field name, such as "data.batch_size". A value
            has the type of the field, or is a string that is converted to that type: a
            bool from true, false, 1 or 0, and a tuple from a Python literal. A float
            field also accepts an integer, a tuple field a list, and a string field a
            function or class, which is converted to its import path. A field that is
            None accepts any value. If "method.name" is an import path, the other fields
            "method.NAME" are those of that class.

    Returns:
        A new config, which is locked, so that no field can be added.

    Raises:
        FileNotFoundError: if there is no file with that name.
        ValueError: if the file raises an error, if the variant is unknown, if the
            config has no field with the name of an override, or if a string cannot be
            converted to the type of its field, or if a function cannot be imported.
        TypeError: if `get_config` does not return a ConfigDict, or if a value that is
            not a string does not have the type of its field.
    """
    if isinstance(name, str):
        path, colon, variant = name.partition(":")
        config = _run(find(path), [variant] if colon else [])
    else:
        plain = name.to_dict() if isinstance(name, ConfigDict) else dict(name)
        config = ConfigDict(plain).lock()
    overrides = _with_own_method(config, dict(overrides or {}))
    _refuse_other_method(config, overrides.get("method.name"))
    groups = dict(_groups(config))
    for field, value in overrides.items():
        _require_field(groups, field)
        group, _, key = field.rpartition(".")
        groups[group][key] = _converted(f"config.{field}", value, groups[group][key])
    if config.get("data", {}).get("channels", 3) != 3:
        _leave_out_colors(config, overrides)
    return config


def _leave_out_colors(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """Changes fields of a config for images that are not red, green and blue.

    Saturation, hue and grayscale are turned off, and statistics of three channels are
    replaced by those to be measured, unless these fields are given.
    """
    augment, second = config.augment, config.augment.second
    if "augment.grayscale_prob" not in given:
        augment.grayscale_prob = 0.0
    if "augment.jitter" not in given:
        augment.jitter = (*augment.jitter[:2], 0.0, 0.0)
    if second.grayscale_prob and "augment.second.grayscale_prob" not in given:
        second.grayscale_prob = 0.0
    if second.jitter and "augment.second.jitter" not in given:
        second.jitter = (*second.jitter[:2], 0.0, 0.0)
    for name in ("mean", "std"):
        if len(augment[name]) == 3 and f"augment.{name}" not in given:
            augment[name] = ()


def _with_own_method(config: ConfigDict, overrides: dict[str, Any]) -> dict[str, Any]:
    """Replaces the method's group if an override names a class by its import path.

    The fields of that class are not in the config, so their overrides are added here,
    and the rest of the overrides is returned.
    """
    name = overrides.get("method.name", "")
    name = name if isinstance(name, str) else _import_path("config.method.name", name)
    if ":" not in name:
        return overrides
    own = [field for field in overrides if field.startswith("method.")]
    group = {field.removeprefix("method."): overrides.pop(field) for field in own}
    with config.unlocked():
        config.method = ConfigDict(
            {key: _of_any_type(value) for key, value in group.items()} | {"name": name}
        )
    return overrides


def _refuse_other_method(config: ConfigDict, name: Any) -> None:
    """Raises an error if an override replaces the method by another of the library."""
    own = config.get("method", {}).get("name", name)
    if name in (None, own):
        return
    methods: dict[str, list[str]] = {}
    same_data = []
    for stem, file in _known().items():
        if "/" not in stem:
            other = _run(file, [])
            methods.setdefault(other.method.name, []).append(stem)
            same_data += [stem] * (_data_set(other) == _data_set(config))
    found = methods.get(name, [])
    found = [stem for stem in found if stem in same_data] or found
    remedy = f"--config={' or '.join(found)}" if found else ", ".join(sorted(methods))
    raise ValueError(
        f"config.method.name={name} cannot replace {own}, because methods differ in "
        f"their fields; use {remedy}, or the import path of a method of your own"
    )


def _data_set(config: ConfigDict) -> tuple[Any, Any]:
    data = config.get("data", {})
    return data.get("source"), data.get("name")


def _of_any_type(value: Any) -> Any:
    """Converts a string that is a Python literal; other values are not changed."""
    try:
        return _literal(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _run(file: pathlib.Path, arguments: list[str]) -> ConfigDict:
    """Returns the config that the file's `get_config` returns, locked."""
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        if get_config is None:
            raise AttributeError(
                "the file must define a function get_config; see configs/"
            )
        config = get_config(*arguments)
    except Exception as error:  # a config file may raise any error
        reason = " ".join(str(error).split())
        raise ValueError(
            f"config file {file} raises {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise TypeError(
            f"{file}: get_config() must return a ConfigDict, not {config!r}; see "
            "configs/"
        )
    return config.lock()


def _groups(config: ConfigDict, name: str = "") -> list[tuple[str, ConfigDict]]:
    """The config and its groups of fields, by dotted name; the config's name is ""."""
    found = [(name, config)]
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            found += _groups(value, f"{name}.{key}" if name else key)
    return found


def _names(groups: Mapping[str, ConfigDict]) -> list[str]:
    """Returns the dotted names of all fields and groups."""
    return [
        f"{name}.{key}" if name else key
        for name, group in groups.items()
        for key in group
    ]


def field_names() -> list[str]:
    """Returns the dotted names of the fields of all methods of the library."""
    groups = [dict(_groups(base.get_config(method))) for method in base.METHODS]
    return list(dict.fromkeys(x for own in groups for x in _names(own) if x not in own))


def _require_field(groups: Mapping[str, ConfigDict], field: str) -> None:
    """Raises an error, which names the nearest field, if there is no such field."""
    fields = _names(groups)
    if field and field in groups:
        inner = [f"config.{name}" for name in fields if name.startswith(f"{field}.")]
        raise ValueError(
            f"config.{field} is a group of fields; set one of {', '.join(inner)}"
        )
    if field not in fields:
        known = [name for name in fields if name not in groups]
        nearest = difflib.get_close_matches(field, known, n=1, cutoff=0)
        raise ValueError(
            f"unknown field config.{field}; the nearest is config.{''.join(nearest)}; "
            "see configs/base.py"
        )


_RULES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
    type(None): "a Python literal",
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def _converted(field: str, value: Any, present: Any) -> Any:
    """Converts a value to the type of the present value of the field."""
    kind = type(present)
    nested = kind is tuple and present and all(type(x) is tuple for x in present)
    if kind is str and callable(value):
        return _import_path(field, value)
    usual = _usual(present)
    rule = f"{_RULES.get(kind, f'of type {kind.__name__}')}, such as {usual!r}"
    if nested:
        rule = f"a tuple of tuples, such as {present!r}, or {present[:1]!r} for one"
    try:
        new = _of_text(value, kind) if isinstance(value, str) else _of(value, kind)
        if nested and not all(type(x) is tuple for x in new):
            raise ValueError(value)
        return new
    except ValueError as error:
        raise ValueError(f"{field}={value} must be {rule}") from error
    except TypeError as error:
        raise TypeError(f"{field}={value!r} must be {rule}") from error


def _usual(present: Any) -> Any:
    """A value like the present one, which may be a number with a special meaning."""
    if type(present) is int and present <= 0:
        return 100
    return 0.5 if present == base.AUTO else present


def _import_path(field: str, value: Any) -> str:
    """Returns the import path "package.module:name" of a function or class."""
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", "")
    if getattr(sys.modules.get(module), name, None) is not value:
        raise ValueError(
            f"{field}={value!r} must be a function or class with a name at the top "
            "level of a module, so that it can be imported when the run is resumed or "
            "evaluated; define it there"
        )
    if module == "__main__":  # another process knows a script by its own name only
        spec = sys.modules[module].__spec__
        module = spec.name if spec else module
    return f"{module}:{name}"


def _of_text(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ValueError(text)
        return _TRUTH[text.lower()]
    if kind is tuple:
        value = _literal(text)
        return _of(value if isinstance(value, tuple | list) else (value,), kind)
    return kind(text) if kind in (int, float, str) else _of(_literal(text), kind)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(text) from error


def _of(value: Any, kind: type) -> Any:
    if kind is type(None) or (kind is tuple and isinstance(value, tuple | list)):
        return _as_tuple(value)
    if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    number = kind in (int, float) and not isinstance(value, bool)
    if number and isinstance(value, numbers.Integral if kind is int else numbers.Real):
        return kind(value)  # also converts NumPy numbers
    raise TypeError(value)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, tuple | list) else value


def import_object(path: str, field: str) -> Any:
    """Imports the object at a path "package.module:name".

    Args:
        path: import path of the object.
        field: config field that has the path, to name in messages.

    Raises:
        ValueError: if there is no such object.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{field}={path!r} cannot be imported: {error}; use package.module:name"
        ) from error


def find(name: str) -> pathlib.Path:
    """Returns the file with a name: a file at that path, or a config of the package.

    Args:
        name: path of a file; or path of a config of the package relative to this
            folder, such as "quickstart" or "sweeps/stl10_crop_ratio"; `configs/` at the
            start and `.py` at the end are optional.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a URL, or a file of the package that is no experiment.
    """
    file = local_path(name)  # shells do not expand `--config=~/x.py`
    key = name.removeprefix("configs/").removesuffix(".py")
    own = file if file.is_file() else FOLDER / f"{key}.py"
    if own.name.startswith(_SHARED) and own.is_file() and own.parent.samefile(FOLDER):
        raise ValueError(
            f"{name} has fields that experiments share, and is none itself; give an "
            "experiment, such as quickstart"
        )
    if file.is_file():
        return file
    known = _known()
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1)
        raise FileNotFoundError(
            f"{name!r} is neither a file nor one of logo_jax's configs; "
            + (f"the nearest is {nearest[0]}; " if nearest else "")
            + f"give a path, or one of {', '.join(known)}"
        )
    return known[key]


def _known() -> dict[str, pathlib.Path]:
    """Returns the config files of this folder, by relative path without `.py`."""
    return {
        file.relative_to(FOLDER).with_suffix("").as_posix(): file
        for file in sorted(FOLDER.rglob("*.py"))
        if not file.name.startswith(_SHARED)
    }
