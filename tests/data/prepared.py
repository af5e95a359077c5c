"""Opens a prepared data set by name and split, as the library does."""

from logo_jax.data.sources import tfds as tfds_source


def load(name, split, data_dir=""):
    folder = tfds_source.directory(data_dir)
    return tfds_source.TfdsSource(tfds_source.prepared(name, folder), split)
