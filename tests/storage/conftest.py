"""Buckets of both kinds, of emulators that are started once."""

import uuid

import pytest

from logo_jax.storage.paths import as_path
from tests.storage import emulators


@pytest.fixture(scope="session")
def variables():
    with emulators.started() as variables:
        yield variables


@pytest.fixture(params=["gs", "s3"])
def bucket(request, variables):
    """A new folder of a bucket."""
    assert variables
    return as_path(f"{request.param}://{emulators.BUCKET}/{uuid.uuid4().hex}")
