import subprocess
import sys

import numpy as np
import pytest

from logo_jax.data import photographs, sources


def test_each_source_reads_what_its_loader_reads(arrays, arrays_dir, data_dir):
    from_npz = sources.load("npz", "test", path=str(arrays_dir))
    from_tfds = sources.load("tfds", "test", name="cifar10", data_dir=str(data_dir))
    np.testing.assert_array_equal(from_npz.images, arrays["test"][0])
    assert sorted(map(bytes, from_tfds.images)) == sorted(map(bytes, from_npz.images))
    assert sources.load("photographs", "test").class_names == tuple(
        photographs.PHOTOGRAPHS
    )


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'imagenet' must be one of tfds, npz, photo"):
        sources.load("imagenet", "train")


def test_a_source_without_its_name_or_path_is_refused():
    with pytest.raises(ValueError, match="needs the data set's name"):
        sources.load("tfds", "train")
    with pytest.raises(ValueError, match="needs path"):
        sources.load("npz", "train")


def test_reading_arrays_does_not_import_tfds(arrays_dir):
    code = (
        "import sys; from logo_jax.data import sources; "
        f"sources.load('npz', 'test', path={str(arrays_dir)!r}); "
        "sys.exit('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
