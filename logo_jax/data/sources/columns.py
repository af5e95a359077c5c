"""Finds the columns of images, labels and splits in a table by their names."""

import re
from collections.abc import Mapping, Sequence

FIELD = "config.data.columns"
ONE_OF = "label="  # at the start of what a column of 0 and 1 has, before its class
# Names of columns, in the order in which they are preferred.
USUAL_NAMES = {
    "image": (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("filepaths", "image_path", "img_path", "image_file", "image", "img"),
        *("image_name", "img_name", "image_id", "img_id", "imageid", "id_code", "id"),
    ),
    "label": (
        *("label", "class", "category", "target", "labels", "class_name", "label_name"),
        *("class_id", "label_id", "category_id"),
    ),
    "split": ("split", "set", "subset", "partition"),
}


def parse_columns(text: str) -> dict[str, str]:
    """Returns the columns that a config gives, by what they have.

    >>> parse_columns("image=photo, label=")
    {'image': 'photo', 'label': ''}

    Raises:
        ValueError: if it has another form.
    """
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        kind, equals, name = map(str.strip, part.partition("="))
        if not equals or kind not in USUAL_NAMES or kind in given:
            raise ValueError(
                f"{FIELD}={text!r} must be columns by what they have, such as "
                "'image=photo,label=breed,split=part', or 'label=' for no label"
            )
        given[kind] = name
    return given


def find_columns(
    names: Sequence[str], given: Mapping[str, str], origin: str
) -> dict[str, int]:
    """Returns the number of the column of images, and of labels and splits, if any.

    Names are compared without regard to case, spaces and hyphens. Of two columns of
    which one has the images, the other has the labels, whatever its name. If the given
    label is several columns, such as "cat+dog", they are "label=cat" and "label=dog".

    >>> find_columns(["Image ID", "breed"], {}, "labels.csv")
    {'image': 0, 'label': 1}

    Args:
        names: names of all columns.
        given: names of columns that are to be used, as of `parse_columns`.
        origin: name of the table, for error messages.

    Raises:
        ValueError: if there is no column of images, or a given column is missing.
    """
    plain = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in names]
    found: dict[str, int] = {}
    for kind, usual in USUAL_NAMES.items():
        known = () if kind in given else usual
        matching = [plain.index(name) for name in known if name in plain]
        if matching:
            found[kind] = matching[0]
        if given.get(kind):
            found |= _given_columns(names, kind, given[kind], origin)
    if "image" not in found:
        raise ValueError(
            f"{origin} has no column that is known to have paths of images, such as "
            f"path or filename, but {', '.join(map(repr, names))}; use e.g. "
            f"--{FIELD}=image={names[0]}"
        )
    if len(names) == 2 and len(found) == 1 and "label" not in given:
        found["label"] = 1 - found["image"]
    return found


def _given_columns(
    names: Sequence[str], kind: str, given: str, origin: str
) -> dict[str, int]:
    """Returns the number of a given column, or of each of several for the label."""
    wanted = {kind: given}
    if kind == "label" and given not in names and "+" in given:
        parts = map(str.strip, given.split("+"))
        wanted = {f"{ONE_OF}{part}": part for part in parts}
    for name in wanted.values():
        if name not in names:
            raise ValueError(
                f"{origin} has no column {name!r}, which {FIELD} names; it has "
                f"{', '.join(names)}"
            )
    return {kind: list(names).index(name) for kind, name in wanted.items()}


def has_known_name(names: Sequence[str], given: Mapping[str, str]) -> bool:
    """Whether a row of cells is a header: one of its cells is a name of a column."""
    known = {name for usual in USUAL_NAMES.values() for name in usual}
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()) for name in names}
    return bool(plain & known) or any(name in names for name in given.values() if name)
