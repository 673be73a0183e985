"""Metric rows on disk: an append-only JSON-lines log, and TensorBoard events.

`metrics.jsonl` is the record; the events are a copy of it, built anew at every start.
A checkpoint stores the log's length, so that rows written after it are cut off again
on resume and every row exists exactly once, and its seal, so that a change of what is
left shows. No row holds a time or a random value.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from spaced_kd import seals
from spaced_kd.errors import CheckpointError, StorageError
from spaced_kd.seals import RunningSeal, Seal

Row = dict[str, Any]
"""One line of a log: JSON scalars by name; metrics are the names with a slash."""

_EVENT_FILES = "events.out.tfevents.*"


def plain(value: Any) -> Any:
    """Return a JSON scalar for a Python, NumPy or JAX scalar of any dtype."""
    return value.item() if hasattr(value, "item") else value


def storage_error(what: str, path: Path, error: OSError) -> StorageError:
    """Return the one-line error for a failed file operation."""
    return StorageError(
        f"cannot {what} {path}: {error.strerror or error}; free space or make it "
        "accessible, then run the same command again."
    )


class MetricLog:
    """Append-only log of rows, one JSON object a line, keys sorted."""

    def __init__(self, path: Path):
        """Open the log; nothing is written before the first `flush`."""
        self._path = path
        self._pending: list[bytes] = []
        self._running: RunningSeal | None = None

    def append(self, row: Mapping[str, Any]) -> Row:
        """Buffer a row.

        Args:
          row: scalars by name; every number is finite.

        Returns:
          The row as it will be read back.

        Raises:
          ValueError: NaN, infinity or an array in the row (a bug of the caller).
        """
        clean = {name: plain(value) for name, value in row.items()}
        text = json.dumps(clean, sort_keys=True, allow_nan=False)
        self._pending.append(text.encode() + b"\n")
        return clean

    def flush(self) -> int:
        """Write what is buffered and wait until it is on the disk.

        Returns:
          The length of the file in bytes, for `truncate`.

        Raises:
          StorageError: the disk is full, read-only or gone; nothing of the buffer is in
            the file then, and `flush` may be tried again.
          CheckpointError: somebody else has written to the file.
        """
        data = b"".join(self._pending)
        try:
            with self._path.open("ab", buffering=0) as file:
                running = self._sealed_up_to(file.tell())
                size = self._write_all(file, data)
        except OSError as error:
            raise storage_error("write", self._path, error) from error
        running.add(data)
        self._pending.clear()
        return size

    def seal(self) -> Seal:
        """Return the seal of the file as `flush` or `truncate` left it."""
        assert self._running is not None, "nothing is known before either"
        return self._running.seal()

    def _sealed_up_to(self, size: int) -> RunningSeal:
        if self._running is None:
            self._running = RunningSeal(self._path.read_bytes() if size else b"")
        if self._running.length != size:
            raise CheckpointError(
                f"{self._path} has {size} bytes, not the {self._running.length} that "
                "this run wrote; let nobody else write to it, and run again."
            )
        return self._running

    def _write_all(self, file: FileIO, data: bytes) -> int:
        start = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(start)
            raise
        return file.tell()

    def truncate(self, offset: int, seal: Seal | None = None) -> None:
        """Cut the file back to `offset` bytes and forget what is buffered.

        Args:
          offset: bytes that stay.
          seal: what they were sealed with, if they were.

        Raises:
          CheckpointError: the file is shorter, or the cut would divide a row, or it has
            another seal: it is not the log that the checkpoint was saved with. It is
            left as it is.
          StorageError: the file cannot be read or written.
        """
        self._pending.clear()
        try:
            self._path.touch()
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(offset - 1, 0))
                if offset and file.read(1) != b"\n":
                    raise CheckpointError(
                        f"{self._path} has {size} bytes and no row that ends at byte "
                        f"{offset}, where the checkpoint expects one; restore the file "
                        "or start in a new workdir."
                    )
                file.seek(0)
                running = RunningSeal(file.read(offset))
                refuse_altered(self._path, running.seal(), seal)
                file.truncate(offset)
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error("cut back", self._path, error) from error
        self._running = running


def refuse_altered(path: Path, found: Seal, wanted: Seal | None) -> None:
    """Check the seal of the log at `path`, if it was sealed.

    Raises:
      CheckpointError: it is another one; names the line if only one has changed.
    """
    wrong = wanted and seals.mismatch(found, wanted)
    if wrong:
        raise altered(path, wrong)


def altered(path: Path, wrong: str) -> CheckpointError:
    """Return the error for a log that is not what its checkpoint sealed."""
    return CheckpointError(
        f"{path} {wrong}; restore the file, or start in a new workdir."
    )


def read_rows(path: Path, *, partial_tail: bool = False) -> list[Row]:
    """Read a log.

    Args:
      path: the file.
      partial_tail: leave out a last line that lacks its newline, which a run that is
        going on, or was killed, may leave behind.

    Raises:
      CheckpointError: a line is not a JSON object of finite numbers.
      StorageError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise storage_error("read", path, error) from error
    *lines, tail = data.split(b"\n")
    if tail and not partial_tail:
        lines.append(tail)
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line, parse_constant=_refuse)
    except ValueError as error:
        raise CheckpointError(
            f"{path}, line {number} is damaged ({error}); restore the file."
        ) from error
    if not isinstance(row, dict):
        raise CheckpointError(
            f"{path}, line {number} is no JSON object; restore the file."
        )
    return row


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a finite number")


def read_json(path: Path, remedy: str = "restore the file") -> dict[str, Any]:
    """Read a JSON object, without its seal.

    Args:
      path: the file.
      remedy: what to do about one that is damaged.

    Raises:
      CheckpointError: it is damaged, or it has a seal and is not what was sealed.
      StorageError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error("read", path, error) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; {remedy}.")
    if seals.KEY in content and content.pop(seals.KEY) != seals.of_content(content):
        raise CheckpointError(
            f"{path} has been changed since it was written: its seal is that of other "
            f"content; {remedy}."
        )
    return content


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replace a file by `content`; a reader, or a kill, finds the old or the new one.

    Raises:
      StorageError: it cannot be written.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temp.open("wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        finally:
            temp.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise storage_error("write", path, error) from error
    return path


def leftovers(folder: Path) -> list[Path]:
    """Return the files that a killed `write_whole` left unfinished in a folder."""
    return sorted(folder.glob(".*.*.tmp"))


class TensorBoard:
    """Event files `seed_<n>/` below a directory: tag = metric key, step = row["step"].

    tensorboardX's `SummaryWriter` hands events to a thread; when the disk is full that
    thread dies unseen and training hangs on its queue. Its `EventsWriter`, used here,
    writes at once, and errors surface where they happen.
    """

    def __init__(self, directory: Path, rows: Iterable[Row] = ()):
        """Replace the event files of earlier starts by the events of `rows`.

        Raises:
          StorageError: the directory cannot be written.
        """
        self._directory = directory
        self._writers: dict[int, Any] = {}
        try:
            for stale in directory.glob(f"seed_*/{_EVENT_FILES}"):
                stale.unlink()
        except OSError as error:
            raise storage_error("delete events in", directory, error) from error
        for row in rows:
            self.write(row)
        self.flush()

    def write(self, row: Row) -> None:
        """Add the metrics of a row, as `MetricLog.append` returned it."""
        # Imported late: tensorboardX imports torch where that is installed.
        from tensorboardX.proto import event_pb2

        # protobuf builds its classes at run time, where pyright cannot see them.
        make_event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        event = make_event(wall_time=time.time(), step=row["step"])
        for name, value in row.items():
            if "/" in name:
                event.summary.value.add(tag=name, simple_value=value)
        try:
            self._writer(row["seed"]).write_event(event)
        except OSError as error:
            raise storage_error("write events in", self._directory, error) from error

    def flush(self) -> None:
        """Put everything written so far on the disk."""
        try:
            for writer in self._writers.values():
                writer.flush()
        except OSError as error:
            raise storage_error("write events in", self._directory, error) from error

    def close(self) -> None:
        """Flush and close the files; `write` must not follow."""
        self.flush()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, seed: int) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        if seed not in self._writers:
            folder = self._directory / f"seed_{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            self._writers[seed] = EventsWriter(str(folder / "events"))
        return self._writers[seed]
