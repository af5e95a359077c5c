"""Reads a prepared data set as the library does, by name and split."""

from logo_jax.data.sources import tfds as tfds_source


def load(name, split, data_dir=""):
    folder = tfds_source.directory(data_dir)
    return tfds_source.TfdsSource(tfds_source.prepared(name, folder), split)
