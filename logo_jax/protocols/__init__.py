"""Evaluation protocols for a frozen encoder; each has a module and a row of `TABLE`.

A row lists the options that its protocol reads; `logo_jax.evaluate` rejects others.
"""

from collections.abc import Mapping
from typing import Any

from logo_jax.protocols import knn, linear_grid, linear_probe, svm, transfer
from logo_jax.protocols.base import Protocol

TABLE: tuple[Protocol, ...] = (
    knn.PROTOCOL,
    linear_probe.PROTOCOL,
    linear_grid.PROTOCOL,
    transfer.PROTOCOL,
    svm.PROTOCOL,
)
NAMES = tuple(dict.fromkeys(protocol.name for protocol in TABLE))
RECIPES = tuple(recipe for protocol in TABLE for recipe in protocol.recipes)
OPTIONS = tuple(dict.fromkeys(name for protocol in TABLE for name in protocol.reads))


def find(name: str, options: Mapping[str, Any]) -> Protocol:
    """Returns the protocol with a name and, if it has recipes, with the given recipe.

    Args:
        name: one of NAMES.
        options: values of the options that were given, by name; the default recipe is
            RECIPES[0].

    Raises:
        ValueError: if there is no such protocol or recipe, or if the protocol does not
            read one of the options.
    """
    recipe = options.get("recipe", RECIPES[0])
    for kind, value, known in (("protocol", name, NAMES), ("recipe", recipe, RECIPES)):
        if value not in known:
            raise ValueError(f"{kind}={value!r} must be one of {', '.join(known)}")
    (protocol,) = (
        protocol
        for protocol in TABLE
        if protocol.name == name
        and (recipe in protocol.recipes or not protocol.recipes)
    )
    for option in options:
        if option not in protocol.reads:
            raise ValueError(
                f"--{option} is not an option of --protocol={name} with "
                f"--recipe={recipe}; remove it"
            )
    return protocol
