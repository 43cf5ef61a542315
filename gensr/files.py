"""Writing so that nothing half-written stays: temporary name, fsync, rename; a full disk says so in words.

And locks, so that no two processes write to one place.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gensr.errors import BadInputError, DamagedFileError, FullDiskError, GensrError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def new_folder(path: Path, *, needs: int | None = None) -> Iterator[Path]:
    """Fill a folder under a temporary name; it appears as `path`, complete and synced, when the block ends.

    A folder that stood at `path` is replaced. Where the block raises, nothing is left and an older `path` is untouched.

    Args:
        path: where the folder shall appear.
        needs: bytes about to be written, for the message of a full disk.

    Raises:
        FullDiskError: the disk is full; names `path` and the bytes.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    # A killed process may have left one.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                sync(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        sync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise_if_full(error, path, needs)
        raise


@contextmanager
def new_file(path: Path, *, needs: int | None = None) -> Iterator[Path]:
    """Write a file under the temporary name it yields; it appears as `path`, synced, when the block ends well.

    Where the block raises, nothing is left and an older `path` is untouched; errors as in `new_folder`.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        raise_if_full(error, path, needs)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; a full disk raises `FullDiskError`."""
    with new_file(path, needs=len(text.encode())) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def raise_if_full(error: BaseException, path: Path, needs: int | None) -> None:
    """Raise `FullDiskError` where `error` says that the disk is full."""
    if not says_full(error):
        return
    size = "" if needs is None else f" {needs:,} bytes"
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    raise FullDiskError(
        f"the disk is full: writing {path} needs{size or ' more space'}, {free:,} bytes are free; nothing half-written "
        "was left. Free some space and run the same command again: it continues from what is complete"
    ) from error


def says_full(error: BaseException) -> bool:
    """Whether `error` says that the disk, or the user's share of it, is full."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    if isinstance(error, OSError):  # numpy drops the number when an array is written short
        return re.search(r"\d+ requested and \d+ written", str(error)) is not None
    # safetensors and tokenizers raise kinds of their own, with Rust's wording.
    return any(f"(os error {number})" in str(error) for number in FULL)


@contextmanager
def undamaged(path: Path, advice: str) -> Iterator[None]:
    """Where the block cannot read what gensr once wrote to `path`, say so, with `advice`.

    Raises:
        DamagedFileError: the block failed; errors that already are in words pass as they are.
    """
    try:
        yield
    except (GensrError, MemoryError):
        raise
    except Exception as error:  # every library has kinds of its own for a damaged file, tokenizers none at all
        reason = f"{type(error).__name__}: {error}"
        raise DamagedFileError(f"{path} cannot be read, it is damaged or incomplete ({reason}). {advice}") from error


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def traceless(*folders: Path) -> Iterator[None]:
    """Where the block fails, remove those of `folders` that it made and left empty, in the order given."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in new:
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()
        raise


@contextmanager
def locked(path: Path, *, refuse: str | None = None) -> Iterator[None]:
    """Hold the lock file at `path`; the kernel releases it however the process ends.

    Args:
        path: the lock file; made where absent.
        refuse: what is in use, for the error when another process holds the lock; where absent, wait for it.

    Raises:
        BadInputError: another process holds it; names its process id.
    """
    with _lock_file(path, refuse) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock_file(path: Path, refuse: str | None) -> IO[str]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if refuse is not None:
                file.seek(0)
                pid = file.read().strip() or "unknown"
                file.close()
                raise BadInputError(f"{refuse} is in use by another process (pid {pid})") from None
            fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever held it may have deleted the file; then the lock that others see is a new one.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
