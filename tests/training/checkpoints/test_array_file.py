import io
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from logo_jax.training.checkpoints import array_file


class Trickle(io.RawIOBase):
    """Stream without a file, which records the size of the largest write."""

    def __init__(self):
        self.content = bytearray()
        self.largest = 0

    def writable(self):
        return True

    def write(self, piece):
        self.content += piece
        self.largest = max(self.largest, len(piece))
        return len(piece)


def arrays():
    rng = np.random.default_rng(0)
    return {
        "flag": np.array([True, False, True]),
        "step": np.array(7, np.int32),
        "params/kernel": rng.normal(size=(3, 5)).astype(np.float32),
        "params/half": rng.normal(size=(3,)).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(6, dtype=np.uint16).reshape(2, 3).T,
    }


def written(content):
    file = io.BytesIO()
    crc32s = array_file.write_arrays(file, content)
    return file.getvalue(), crc32s


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
        assert np.asarray(actual[name]).tobytes() == array.tobytes()


def test_arrays_come_back_bit_for_bit_through_a_stream():
    content, _ = written(arrays())
    assert_same(dict(array_file.read_arrays(io.BytesIO(content), arrays())), arrays())


def test_the_safetensors_library_reads_the_same_arrays():
    content, _ = written(arrays())
    found = dict(safetensors.deserialize(content))
    assert {name: bytes(x["data"]) for name, x in found.items()} == {
        name: x.tobytes() for name, x in arrays().items()
    }
    assert {name: tuple(x["shape"]) for name, x in found.items()} == {
        name: x.shape for name, x in arrays().items()
    }
    dtypes = {"flag": "BOOL", "step": "I32", "params/half": "BF16", "transposed": "U16"}
    assert dtypes.items() <= {name: x["dtype"] for name, x in found.items()}.items()


def test_a_file_of_the_safetensors_library_is_read():
    like = {name: x for name, x in arrays().items() if name != "transposed"}
    content = safetensors.numpy.save(like)
    assert_same(dict(array_file.read_arrays(io.BytesIO(content), like)), like)


def test_only_wanted_arrays_are_read():
    content, _ = written(arrays())
    wanted = {"step": arrays()["step"]}
    # "step" is not last in the file, so the end of the file is not needed
    short = content[: -len(arrays()["flag"].tobytes())]
    assert_same(dict(array_file.read_arrays(io.BytesIO(short), wanted)), wanted)


def test_wide_items_are_aligned_in_the_file():
    content, _ = written(arrays())
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        assert entry["data_offsets"][0] % arrays()[name].itemsize == 0


def test_a_large_array_is_written_and_read_in_chunks(monkeypatch):
    monkeypatch.setattr(array_file, "CHUNK", 1000)
    large = {"x": np.random.default_rng(0).bytes(10_001)}
    large = {"x": np.frombuffer(large["x"], np.uint8)}
    file = Trickle()
    crc32s = array_file.write_arrays(file, large)
    assert file.largest == 1000
    stream = io.BytesIO(bytes(file.content))
    assert_same(dict(array_file.read_arrays(stream, large)), large)
    monkeypatch.undo()
    assert written(large) == (bytes(file.content), crc32s)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("step", np.zeros((), np.int64)),
        ("step", np.zeros(1, np.int32)),
        ("params/kernel", np.zeros((5, 3), np.float32)),
    ],
)
def test_an_array_of_another_dtype_or_shape_is_an_error(name, like):
    content, _ = written(arrays())
    with pytest.raises(ValueError, match=f"{name} has another dtype or shape"):
        list(array_file.read_arrays(io.BytesIO(content), {name: like}))


@pytest.mark.parametrize("size", [0, 5, 20, -1])
def test_a_truncated_file_is_an_error(size):
    content, _ = written(arrays())
    with pytest.raises(ValueError, match="truncated"):
        list(array_file.read_arrays(io.BytesIO(content[:size]), arrays()))


def test_a_damaged_length_does_not_allocate_memory():
    content, _ = written(arrays())
    content = content[:7] + b"\x40" + content[8:]
    with pytest.raises(ValueError, match="the header is damaged"):
        list(array_file.read_arrays(io.BytesIO(content), arrays()))
