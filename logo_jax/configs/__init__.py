"""Experiments and sweeps as files, which every install has: found by name.

`--config=configs/quickstart.py` and `--config=quickstart` are the same file, wherever
the command is run; a clone shows this folder as `configs/` too.
"""

import pathlib

FOLDER = pathlib.Path(__file__).parent


def find(name: str) -> pathlib.Path:
    """The file of a name: one of the user's, else one of these.

    Args:
        name: a path; or, of these, a path in this folder, with `configs/` and `.py` or
            without: "quickstart", "sweeps/stl10_crop_ratio".

    Raises:
        FileNotFoundError: where neither has it.
    """
    file = pathlib.Path(name)
    if file.is_file():
        return file
    known = _known()
    key = name.removeprefix("configs/").removesuffix(".py")
    if key not in known:
        raise FileNotFoundError(
            f"{name!r} is neither a file nor one of logo_jax's configs; give a path, "
            f"or one of {', '.join(known)}"
        )
    return known[key]


def _known() -> dict[str, pathlib.Path]:
    """The files of this folder, by their path in it without `.py`."""
    return {
        file.relative_to(FOLDER).with_suffix("").as_posix(): file
        for file in sorted(FOLDER.rglob("*.py"))
        if file.name != "__init__.py"
    }
