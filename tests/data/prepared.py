"""Opens a prepared data set by name and split, as the library does."""

from tensorflow_datasets.core.read_only_builder import builder_from_files

from logo_jax.data import datasets
from logo_jax.data.load import DataLocation, load_images
from logo_jax.data.sources import tfds as tfds_source


def load(name, split, data_dir=""):
    folder = tfds_source.directory(data_dir)
    return tfds_source.TfdsSource(tfds_source.prepared(name, folder), split)


def assert_has_the_splits_of_the_table(name, data_dir):
    """Fails unless the table of data sets names the splits that have been written."""
    dataset = datasets.find(name)
    written = builder_from_files(dataset.tfds, data_dir=data_dir).info.splits
    named = {part for splits in dataset.examples for part in splits.split("+")}
    assert named == set(written)
    images = load_images(DataLocation("tfds", name=name, data_dir=str(data_dir)))
    pretrain = dataset.pretrain.split("+")
    assert len(images.train) == sum(written[part].num_examples for part in pretrain)
