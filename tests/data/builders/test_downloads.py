import functools
import http.server
import socket
import threading
import time

import pytest
from tensorflow_datasets.core.download.checksums import compute_url_info

from logo_jax.data.builders import downloads, fgvc_aircraft, writing
from tests.data import prepared
from tests.data.builders.test_fgvc_aircraft import COUNTS, NAME, archive_contents
from tests.data.tar import write_tar


@pytest.fixture
def server(tmp_path):
    """HTTP server on localhost for the files in the folder `served`."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002
        del format, args


def test_a_file_downloaded_whole_is_not_downloaded_again(server, tmp_path):
    file = write_tar(tmp_path / "served" / NAME, archive_contents())
    url = f"http://127.0.0.1:{server.server_port}/{NAME}"

    class Tiny(fgvc_aircraft.FgvcAircraft, skip_registration=True):
        name = "fgvc_aircraft"
        url_infos = {url: compute_url_info(file)}

    with pytest.raises(ValueError, match="train must have 3 examples, got 2"):
        writing.write_published(Tiny, tmp_path, COUNTS | {"train": 3})
    assert not (tmp_path / "fgvc_aircraft").exists()
    file.unlink()
    assert not downloads.answers(url, timeout_s=2)
    writing.write_published(Tiny, tmp_path, COUNTS)
    assert len(prepared.load("fgvc_aircraft", "train", tmp_path)) == 2


def test_a_download_with_another_checksum_is_refused_in_one_error(server, tmp_path):
    file = write_tar(tmp_path / "served" / NAME, archive_contents())
    info = compute_url_info(file)
    write_tar(file, {"other": b"content"})
    url = f"http://127.0.0.1:{server.server_port}/{NAME}"

    class Tiny(fgvc_aircraft.FgvcAircraft, skip_registration=True):
        name = "fgvc_aircraft"
        url_infos = {url: info}

    with pytest.raises(ValueError, match="download of fgvc_aircraft failed"):
        writing.write_published(Tiny, tmp_path, COUNTS)
    assert not (tmp_path / "fgvc_aircraft").exists()


def test_the_error_lists_missing_manual_files_and_their_folder(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "a.tar").touch()
    with pytest.raises(FileNotFoundError) as error:
        downloads.require_placed(tmp_path, ("a.tar", "b.tar", "c.tar"), "ask them")
    assert str(error.value) == (
        f"b.tar, c.tar must be downloaded manually to {manual}: ask them"
    )
    downloads.require_placed(tmp_path, ("a.tar",), "ask them")


def test_waiting_for_a_silent_host_ends_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert not downloads.answers(url, timeout_s=0.3)
        assert time.monotonic() - start < 2
