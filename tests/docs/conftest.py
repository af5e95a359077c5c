"""Calls in one process share the compiled programs of equal configs, as commands do."""

from tests.commands.conftest import fixture_shared_programs

__all__ = ["fixture_shared_programs"]
