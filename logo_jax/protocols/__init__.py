"""Evaluation protocols for an encoder; each has a module and a row of `TABLE`.

A row lists the options that its protocol reads; `logo_jax.evaluate` rejects others.
"""

from collections.abc import Mapping
from typing import Any

from logo_jax.protocols import finetune, knn, linear_grid, linear_probe, svm, transfer
from logo_jax.protocols.base import Protocol

TABLE: tuple[Protocol, ...] = (
    knn.PROTOCOL,
    linear_probe.PROTOCOL,
    linear_grid.PROTOCOL,
    finetune.PROTOCOL,
    transfer.PROTOCOL,
    svm.PROTOCOL,
)
NAMES = tuple(dict.fromkeys(protocol.name for protocol in TABLE))
RECIPES = tuple(
    dict.fromkeys(recipe for protocol in TABLE for recipe in protocol.recipes)
)
OPTIONS = tuple(dict.fromkeys(name for protocol in TABLE for name in protocol.reads))


def recipes_of(name: str) -> tuple[str, ...]:
    """Returns the recipes of the protocols with a name, the default first."""
    return tuple(
        x for protocol in TABLE if protocol.name == name for x in protocol.recipes
    )


def find(name: str, options: Mapping[str, Any]) -> Protocol:
    """Returns the protocol with a name and, if it has recipes, with the given recipe.

    Args:
        name: one of NAMES.
        options: values of the options that were given, by name; the default recipe is
            the first of `recipes_of(name)`.

    Raises:
        ValueError: if there is no such protocol or recipe, or if the protocol does not
            read one of the options.
    """
    if name not in NAMES:
        raise ValueError(f"protocol={name!r} must be one of {', '.join(NAMES)}")
    recipes = recipes_of(name)
    recipe = options.get("recipe", next(iter(recipes), RECIPES[0]))
    known = recipes or RECIPES
    if recipe not in known:
        raise ValueError(f"recipe={recipe!r} must be one of {', '.join(known)}")
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
