"""Evaluation protocols of a frozen encoder: a module and a row of `TABLE` each.

A row says which options its protocol reads, so that the command refuses the others.
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
    """The protocol of a name, and of the recipe among the options.

    Args:
        name: one of NAMES.
        options: those that were given, by name; the default recipe is RECIPES[0].

    Raises:
        ValueError: for an option that the protocol does not read.
    """
    recipe = options.get("recipe", RECIPES[0])
    (protocol,) = (
        protocol
        for protocol in TABLE
        if protocol.name == name
        and (recipe in protocol.recipes or not protocol.recipes)
    )
    for option in options:
        if option not in protocol.reads:
            raise ValueError(
                f"--{option} is not read by --protocol={name} with --recipe={recipe}; "
                "leave it out"
            )
    return protocol
