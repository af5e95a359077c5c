"""The published files that a builder reads: placed by hand, downloaded, or to be had.

Files placed by hand lie in `downloads/manual` under the data folder. What TFDS has
downloaded lies in `downloads`, and a file that is there complete is not fetched again.
"""

import queue
import threading
from pathlib import Path
from typing import Any

import requests
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.core.download.checksums import UrlInfo, compute_url_info


class Published:
    """What a builder of ours says of the files it reads.

    Attributes:
        name: of the data set.
        url_infos: size, checksum and file name of the file behind each URL, which TFDS
            checks after a download.
        unchecked_urls: of files whose checksum is not known; of these only the examples
            are counted.
        otherwise: what one can do instead of placing a file by hand.
    """

    name: str
    url_infos: Any = {}
    unchecked_urls: tuple[str, ...] = ()
    otherwise: str = ""

    @classmethod
    def published(cls) -> dict[str, UrlInfo | None]:
        """What is known of each file."""
        return cls.url_infos | dict.fromkeys(cls.unchecked_urls)

    def fetch(self, dl_manager: Any, url: str) -> Path:
        """The file behind url, placed by hand or downloaded now or before.

        TFDS itself looks only for files placed by hand whose checksum it knows.
        """
        placed = Path(dl_manager.download_dir) / "manual" / _file_name(url, None)
        if url in self.unchecked_urls and placed.is_file():
            return placed
        return Path(dl_manager.download(url))


def require_files(
    folder: Path, builder_class: type[Published], *, timeout_s: float
) -> None:
    """Raises unless every file that the builder reads is there or its host answers.

    TFDS itself retries an unreachable host for some 200 seconds.

    Args:
        folder: data_dir, under which files are looked for.
        builder_class: what knows the files.
        timeout_s: seconds to wait for a host to answer.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        ValueError: if a file placed by hand has another size or checksum.
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
                f"{placed} is missing and {url} does not answer: put the file there"
                + (f" ({_described(info)})" if info else "")
                + builder_class.otherwise
            )


def require_placed(folder: Path, files: tuple[str, ...], where: str) -> None:
    """Raises FileNotFoundError unless all files have been placed by hand.

    Args:
        folder: data_dir, under which files are looked for.
        files: names of files that cannot be downloaded.
        where: where they are to be had.
    """
    manual = folder / "downloads" / "manual"
    missing = [file for file in files if not (manual / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} must be fetched by hand and put in {manual}: {where}"
        )


def is_downloaded(cache: Path, url: str, info: UrlInfo | None) -> bool:
    """Whether TFDS has the whole file behind url in its cache for the data set."""
    name = resource.get_dl_fname(url, info.checksum if info else None)
    # TFDS takes for whole what has its INFO file, which it writes after checking.
    return (cache / name).is_file() and (cache / f"{name}.INFO").is_file()


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether url can be had, as far as is known after timeout_s seconds.

    The question is asked by the client that TFDS downloads with, so that proxies and
    certificates count alike.
    """
    answer = queue.SimpleQueue()

    def ask() -> None:
        try:
            response = requests.head(url, timeout=timeout_s, allow_redirects=True)
            answer.put(response.ok)
        except requests.RequestException:
            answer.put(False)

    # Name resolution heeds no timeout, so the thread may have to be left behind.
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
            f"{file} has {_described(found)}; must have {_described(expected)}: "
            f"replace it with {url}"
        )


def _described(info: UrlInfo) -> str:
    return f"{int(info.size)} bytes, sha256 {info.checksum}"
