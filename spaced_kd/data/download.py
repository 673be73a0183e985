"""Download files whose size and SHA-256 are known beforehand, over https only."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from spaced_kd.errors import DataError

_TIMEOUT_SECONDS = 10  # to connect, and between two pieces
_PIECE_BYTES = 1 << 20

logger = logging.getLogger("spaced_kd")


class Published(Protocol):
    """A file as its publisher gives it. url: https; size: bytes; sha256: hex."""

    @property
    def url(self) -> str: ...  # noqa: D102

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102


def download_archive(
    published: Published, target: Path, root: Path, title: str, folder: str
) -> None:
    """Write a data set's archive to `target`; tell what else would do if that fails.

    Args:
      published: the archive.
      target: a new file.
      root: where the data set was looked for.
      title: of the data set, for people.
      folder: the archive's only one, which is as good when it lies in `root`.

    Raises:
      DataError: unreachable, or not the expected content.
      OSError: `target` cannot be written.
    """
    logger.info("Downloading %s (%d bytes).", published.url, published.size)
    try:
        download(published.url, target, published.size, published.sha256)
    except DataError as error:
        raise DataError(
            f"{title} is not in {root} and cannot be downloaded: {error} Put the file "
            f"{published.url} or the folder {folder} extracted from it into that "
            "folder, or set --config.data.dir or TFDS_DATA_DIR to one that has it."
        ) from error


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, target: Path, size: int, sha256: str) -> None:
    """Write the file behind `url` to `target`, or leave nothing there.

    Args:
      url: https.
      target: a new file.
      size: expected, bytes; not one more is accepted.
      sha256: expected, hex.

    Raises:
      DataError: unreachable, or not the expected content.
      OSError: `target` cannot be written.
    """
    _require_https(url)
    received = 0
    try:
        with target.open("xb") as file:
            for piece in _pieces(url):
                received += len(piece)
                if received > size:
                    break
                file.write(piece)
        if received != size:
            more = "more than " if received > size else ""
            raise DataError(f"{url} sent {more}{min(received, size)} of {size} bytes.")
        verify(target, size, sha256)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def verify(path: Path, size: int, sha256: str) -> None:
    """Check a file against its published size and hash.

    Raises:
      DataError: it differs; names what was expected and what was found.
    """
    found = path.stat().st_size
    if found != size:
        raise DataError(f"{path} has {found} bytes instead of {size}.")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise DataError(f"{path} has SHA-256 {actual} instead of {sha256}.")


def _pieces(url: str) -> Iterator[bytes]:
    opener = urllib.request.build_opener(_HttpsRedirects)
    try:
        with opener.open(url, timeout=_TIMEOUT_SECONDS) as response:
            while piece := response.read(_PIECE_BYTES):
                yield piece
    except urllib.error.URLError as error:
        raise DataError(f"{url} is out of reach: {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} broke off: {error!r}.") from error


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise DataError(f"{url} is not https, which is refused.")
