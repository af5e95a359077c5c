"""Locating the published files of a data set: placed by hand or downloaded.

Files placed by hand are in `downloads/manual` under the data folder. Files downloaded
by TFDS are in `downloads`; a complete file is not downloaded again.
"""

import queue
import threading
from pathlib import Path
from typing import Any

import requests
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.core.download.checksums import UrlInfo, compute_url_info


class Published:
    """Mixin for TFDS builders that declares the published files they read.

    Attributes:
        name: name of the data set.
        url_infos: size, checksum and file name for each URL, which TFDS checks after a
            download.
        unchecked_urls: URLs of files with unknown checksum. For these files only the
            number of examples is checked.
        otherwise: alternative to placing a file by hand, appended to error messages.
    """

    name: str
    url_infos: Any = {}
    unchecked_urls: tuple[str, ...] = ()
    otherwise: str = ""

    @classmethod
    def published(cls) -> dict[str, UrlInfo | None]:
        """Returns the size, checksum and name for each URL; None if unknown."""
        return cls.url_infos | dict.fromkeys(cls.unchecked_urls)

    def fetch(self, dl_manager: Any, url: str) -> Path:
        """Returns the local file for url and downloads it if necessary.

        TFDS itself finds files placed by hand only if it knows their checksums.
        """
        placed = Path(dl_manager.download_dir) / "manual" / _file_name(url, None)
        if url in self.unchecked_urls and placed.is_file():
            return placed
        return Path(dl_manager.download(url))


def require_files(
    folder: Path, builder_class: type[Published], *, timeout_s: float
) -> None:
    """Raises an error if a file that the builder reads is neither local nor online.

    Without this check, TFDS retries an unreachable host for about 200 seconds.

    Args:
        folder: TFDS data_dir, which contains the `downloads` folder.
        builder_class: class that declares the files.
        timeout_s: time to wait for a host to answer, in seconds.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        ValueError: if a file placed by hand does not have the published size and
            checksum.
    """
    downloads = folder / "downloads"
    for url, info in builder_class.published().items():
        placed = downloads / "manual" / _file_name(url, info)
        if placed.is_file():
            if info is not None:
                _require_same(placed, url, info)
        elif not is_downloaded(
            downloads / builder_class.name, url, info
        ) and not answers(url, timeout_s=timeout_s):
            raise FileNotFoundError(
                f"{placed} is missing and {url} does not answer; copy the file to that "
                "path"
                + (f" ({_described(info)})" if info else "")
                + builder_class.otherwise
            )


def require_placed(folder: Path, files: tuple[str, ...], where: str) -> None:
    """Raises FileNotFoundError if a file has not been placed by hand.

    Args:
        folder: TFDS data_dir, which contains the `downloads` folder.
        files: names of files that cannot be downloaded automatically.
        where: source of the files, for the error message.
    """
    manual = folder / "downloads" / "manual"
    missing = [file for file in files if not (manual / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} must be downloaded manually to {manual}: {where}"
        )


def is_downloaded(cache: Path, url: str, info: UrlInfo | None) -> bool:
    """Whether TFDS has the complete file for url in the data set's cache."""
    name = resource.get_dl_fname(url, info.checksum if info else None)
    # TFDS considers a file complete if it has an INFO file, which TFDS writes after
    # it has checked the checksum.
    return (cache / name).is_file() and (cache / f"{name}.INFO").is_file()


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether the host answers a HEAD request for url within timeout_s seconds.

    The request uses the HTTP client of TFDS, so proxies and certificates have the same
    effect as in a download.
    """
    answer = queue.SimpleQueue()

    def ask() -> None:
        try:
            response = requests.head(url, timeout=timeout_s, allow_redirects=True)
            answer.put(response.ok)
        except requests.RequestException:
            answer.put(False)

    # DNS resolution ignores the timeout, so the daemon thread may outlive this call.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        return False


def _file_name(url: str, info: UrlInfo | None) -> str:
    return (info and info.filename) or url.rpartition("/")[2]


def _require_same(file: Path, url: str, expected: UrlInfo) -> None:
    found = compute_url_info(file)
    if found != expected:
        raise ValueError(
            f"{file} must have {_described(expected)}, got {_described(found)}; "
            f"replace it with {url}"
        )


def _described(info: UrlInfo) -> str:
    return f"{int(info.size)} bytes, sha256 {info.checksum}"
