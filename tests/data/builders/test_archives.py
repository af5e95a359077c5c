import pytest

from logo_jax.data.builders import archives
from tests.data.tar import tar_bytes, write_tar

CONTENTS = {"b": b"second", "a": b"first", "c": b"third"}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_members_come_in_the_order_of_the_archive(name, tmp_path):
    file = write_tar(tmp_path / name, CONTENTS)
    streamed = archives.stream_members(file, ["c", "b"])
    assert list(streamed) == [("b", b"second"), ("c", b"third")]


def test_a_missing_member_is_named(tmp_path):
    file = write_tar(tmp_path / "x.tar", CONTENTS)
    with pytest.raises(ValueError, match="has no file d; download it again"):
        archives.read_members(file, ["a", "d"])
    with (
        pytest.raises(ValueError, match="has no file d; download it again"),
        archives.open_member(file, "d"),
    ):
        pass


def test_an_archive_cut_short_is_called_damaged(tmp_path):
    whole = tar_bytes({"a": bytes(range(256)) * 99, "b": b"end"}, "w:gz")
    file = tmp_path / "x.tar.gz"
    for content in (whole[: len(whole) // 2], b"not an archive"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"gz is damaged .*; download it again$"):
            archives.read_members(file, ["b"])
