"""Checkpoints and other files at any URL that fsspec knows: another folder, a bucket at s3:// or gs://, sftp://, ...

A file is first written locally and then copied; the ledger stores its URL, so that any machine that reads the
ledger finds it to resume, export or probe a trial. The local copy is kept and is used
if present. Credentials come from the environment, as each kind of storage defines it, and are never part of a URL.
"""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from leadline.errors import SpecError, StoreError, absence, not_installed
from leadline.store.retry import retry
from leadline.store.secrets import has_secrets, hide_secrets

LONGEST_URL = 150
"""Maximum length of a folder's URL; the ledger stores up to 255 characters for a file's URL."""

MOMENT_SECONDS = 10.0
"""Default maximum seconds to retry an unreachable artifact store."""

FIRST_PAUSE = 1.0
"""Seconds before the first retry of an unreachable artifact store."""

HOPELESS = frozenset({errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.EDQUOT})
"""System errors for which retrying is useless."""

WHOLE_BY_THEMSELVES = frozenset({"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "tos"})
"""Kinds of storage that write files atomically; elsewhere a file is renamed when it is complete."""

PACKAGES = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}
"""Package that each kind of storage needs, and the optional dependency (extra) of Leadline that contains it."""

T = TypeVar("T")


class MissingArtifact(StoreError):
    """A file named in the ledger no longer exists."""


def is_url(place: str) -> bool:
    """Return whether a name is a URL and not a local file."""
    return "://" in place


def folder_url(place: str) -> str:
    """Check that a folder can be used for artifacts and return its URL; nothing is created.

    Args:
        place: a URL or a local folder.

    Raises:
        SpecError: the URL is invalid, too long, that of a local file or contains a password, or a required package is
            not installed.
    """
    if is_url(place) and has_secrets(place):
        raise SpecError(
            f"artifacts {hide_secrets(place)}: a password in the URL would be stored in the ledger; put it into the"
            f" environment instead"
        )
    system, path = _system(place)
    url = str(system.unstrip_protocol(path)).rstrip("/")
    if "file" in system.protocol and Path(path).is_file():
        raise SpecError(f"artifacts {url}: {absence(Path(path), 'folder')}")
    if len(url) > LONGEST_URL:
        raise SpecError(f"artifacts {url}: {len(url)} characters, more than {LONGEST_URL}; choose a shorter URL")
    return url


def put(path: Path, url: str | None, patience: float = MOMENT_SECONDS) -> str:
    """Copy a file into a folder at a URL and return the name to store in the ledger: the file's new URL.

    Args:
        path: the local file.
        url: from `folder_url`; None: the file is kept only locally, under its own name.
        patience: maximum seconds to retry while the artifact store is unreachable.

    Raises:
        StoreError: it cannot be written: permanently, raised at once, or for `patience` seconds.
    """
    if url is None:
        return path.name
    place = f"{url}/{path.name}"

    def copy(again: bool) -> None:
        system, target = _system(place, again)
        if urlsplit(place).scheme in WHOLE_BY_THEMSELVES:
            system.put_file(str(path), target)  # without makedirs, which would create a bucket for a mistyped name
            return
        system.makedirs(system._parent(target), exist_ok=True)
        partial = f"{target}.{os.getpid()}.partial"
        try:
            system.put_file(str(path), partial)
            system.mv(partial, target)
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(partial)
            raise

    try:
        _retry(copy, f"{place}: cannot be written", patience)
    except FileNotFoundError as error:  # the bucket or the parent folder is missing
        text = f"artifacts {place}: cannot be written: {error}; everything stored so far is kept"
        raise StoreError(hide_secrets(text)) from None
    return place


def get(name: str, trial: str, folder: Path, patience: float = MOMENT_SECONDS) -> Path:
    """Return the local copy of a trial's file named in the ledger, downloading it into a folder if missing.

    Args:
        name: a file name in the folder, or a URL.
        trial: the hash of the trial that the file belongs to.
        folder: the folder of checkpoints.
        patience: maximum seconds to retry while the artifact store is unreachable.

    Raises:
        MissingArtifact: the file does not exist at the URL, or is none of the trial.
        StoreError: it cannot be read now or from this machine.
    """
    here = local_copy(name, trial, folder)
    if not is_url(name):
        return here

    def copy(again: bool) -> None:
        system, source = _system(name, again)
        system.invalidate_cache()  # another machine may have written it since the folder was last listed
        size = system.size(source)
        if here.is_file() and here.stat().st_size == size:
            return
        partial = here.with_name(f"{here.name}.{os.getpid()}.partial")
        try:
            system.get_file(source, str(partial))
            partial.replace(here)
        finally:
            partial.unlink(missing_ok=True)

    try:
        _retry(copy, f"{name}: cannot be read", patience)
    except FileNotFoundError:
        raise MissingArtifact(hide_secrets(f"checkpoint {name}: there is no such file")) from None
    return here


def local_copy(name: str, trial: str, folder: Path) -> Path:
    """Return where the local copy of a trial's file lies, after checking that its name is one of the trial's.

    Whoever can write to the ledger could name any other file there, to be copied or removed.

    Raises:
        MissingArtifact: the file does not belong to the trial.
    """
    file = file_name(name)
    plain = "::" not in name if is_url(name) else name == file  # fsspec opens a::b in an archive or a cache
    if not plain or not re.fullmatch(rf"{re.escape(trial)}-[\w.-]+", file) or not trial.isalnum():
        raise MissingArtifact(
            hide_secrets(f"checkpoint {name}: is not a file of trial {trial[:12]}, so it is not used")
        )
    return folder / file


def remove(name: str, trial: str, folder: Path, url: str | None) -> None:
    """Remove a trial's file that the ledger no longer names, locally and, in the folder at a URL, there too.

    A file that is not the trial's, or cannot be removed, for example from an append-only bucket, only costs space.
    """
    try:
        here = local_copy(name, trial, folder)
    except MissingArtifact:
        return
    with contextlib.suppress(OSError):
        here.unlink()
    if url is not None and name == f"{url}/{here.name}":
        with contextlib.suppress(Exception):  # each kind of storage has its own exceptions
            system, target = _system(name)
            system.rm_file(target)


def remove_strays(url: str | None, trial: str, kept: Collection[str | None]) -> None:
    """Remove files of a trial at a URL that are not in the ledger because a worker was killed.

    Files that cannot be listed or removed are left alone, as in `remove`.
    """
    if url is None:
        return
    named = {file_name(name) for name in kept if name is not None}
    found: list[str] = []
    with contextlib.suppress(Exception):
        system, path = _system(url)
        system.invalidate_cache()
        found = [str(one) for one in system.ls(path, detail=False)]  # not glob: the folder's name may contain a [
    for stray in found:
        if file_name(stray).startswith(f"{trial}-") and file_name(stray) not in named:
            with contextlib.suppress(Exception):
                system.rm_file(stray)


def file_name(name: str) -> str:
    """Return a file's name without the URL of its folder."""
    return name.rsplit("/", 1)[-1]


@contextlib.contextmanager
def destination(place: str) -> Iterator[Path]:
    """Yield a folder to write into: the place itself, or a temporary folder that is copied to its URL afterwards.

    Raises:
        LeadlineError: the URL cannot be used or written.
    """
    if not is_url(place):
        yield Path(place)
        return
    url = folder_url(place)
    with tempfile.TemporaryDirectory(prefix="leadline-") as name:
        folder = Path(name)
        yield folder
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                below = path.parent.relative_to(folder).as_posix()
                put(path, url if below == "." else f"{url}/{below}")


def _system(place: str, reconnect: bool = False) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, optionally with a new connection, and the path in it.

    Raises:
        SpecError: the URL is not supported, or a required package is not installed.
    """
    kind = urlsplit(place).scheme if is_url(place) else "file"
    try:
        system, path = fsspec.url_to_fs(place, **({"skip_instance_cache": True} if reconnect else {}))
    except ImportError as error:
        what = f"artifacts {hide_secrets(place)}: {kind}://"
        if kind in PACKAGES:
            raise SpecError(not_installed(what, *PACKAGES[kind])) from None
        raise SpecError(f"{what} needs a package that is not installed: {' '.join(str(error).split())}") from None
    except ValueError as error:
        text = f"artifacts {place}: {' '.join(str(error).split())}; expected a folder or a URL such as file:///PATH,"
        raise SpecError(f"{hide_secrets(text)} s3://BUCKET/PATH or gs://BUCKET/PATH") from None
    return system, str(path)


def _retry(function: Callable[[bool], T], what: str, patience: float) -> T:
    """Return the result of a function, retrying while its errors may be temporary.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the function failed for `patience` seconds, or with a permanent error.
    """
    try:
        return retry(function, patience, FIRST_PAUSE, _is_transient)
    except FileNotFoundError:
        raise
    except SpecError as error:  # a problem of this machine, not of the trial
        raise StoreError(str(error)) from None
    except Exception as error:  # each kind of storage has its own exceptions
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StoreError(hide_secrets(f"artifacts {what}: {reason}; everything stored so far is kept")) from None


def _is_transient(error: Exception) -> bool:
    """Return whether an error may be temporary."""
    kinds = SpecError | FileNotFoundError | PermissionError | FileExistsError | IsADirectoryError | NotADirectoryError
    # errors of botocore, google.auth and azure, which may not be installed
    unknown = type(error).__name__.endswith(("CredentialsError", "AuthenticationError"))
    hopeless = isinstance(error, kinds | NotImplementedError) or getattr(error, "errno", None) in HOPELESS
    return not (hopeless or unknown)
