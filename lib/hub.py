"""Hub: a repository of the model hub at one revision, as a folder of verified files.

The cache of ``huggingface_hub`` is looked at first. The network is asked only for what is not there.
"""

import errno
import hashlib
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
from huggingface_hub import constants, errors

from lib.sources import SourceError, verify
from lib.study import loading

WAITS = (1, 2, 4)
"""Seconds before each further try, where the hub is out of order. Its client itself waits after 429 and resumes."""


@lru_cache
def folder(
    repository: str, revision: str | None, kind: Literal["model", "dataset"], files: tuple[str, ...],
    but: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """The folder of a repository's files at a revision, fetched if they are not in the cache.

    ``files``, ``but`` : patterns of the files that are wanted, and of those among them that are not.

    Raises
    ------
    SourceError : they cannot be had, or are not the pinned ones; says which and what to do.
    """
    asked: dict[str, Any] = {"repo_id": repository, "repo_type": kind, "revision": revision}
    patterns = {"allow_patterns": [*files], "ignore_patterns": [*but]}
    try:
        found = Path(_cached(asked, patterns) or fetched(**asked, **patterns))
    except Exception as error:  # the client and what it is built on raise some twenty kinds
        at, told = f" (revision {revision})" if revision else "", _told(error, _lacking(asked, patterns))
        lacking = SourceError(f"'{repository}' is no folder here, and from the model hub it did not come{at}: {told}")
        lacking.reason = told
        raise lacking from error
    if absent := [name for name in pinned(repository, revision) if name in files and not (found / name).is_file()]:
        lacking = OSError(f"{', '.join(absent)} of '{repository}' is not there")
        raise SourceError(f"'{repository}': {_told(lacking, ', '.join(absent))}")
    for file in sorted(path for path in found.rglob("*") if path.is_file() and any(map(path.match, files))):
        _verify(file, pinned(repository, revision).get(file.name))
    return found


def pinned(repository: str, revision: str | None) -> dict[str, str]:
    """The files of a repository whose SHA-256 is pinned at this revision: name → SHA-256."""
    pin = loading.hub_pins().get(repository, {})
    return pin["files"] if pin and revision in (None, pin["revision"]) else {}


def _cached(asked: dict[str, Any], patterns: dict[str, Any]) -> str | None:
    """The folder, if all of its files are known to be there."""
    try:
        huggingface_hub.get_cached_repo_tree(**asked)  # without a listing, what is there may be a part
        return huggingface_hub.snapshot_download(**asked, **patterns, local_files_only=True)
    except (errors.CachedRepoTreeNotFoundError, errors.LocalEntryNotFoundError):
        return None


def fetched(**asked: Any) -> str:
    """The folder that ``huggingface_hub.snapshot_download`` fetches; again where the hub is out of order for a moment,
    and not at all where this process could not reach it before: its client tries for half a minute each time."""
    if constants.ENDPOINT in _unreached():
        raise _unreached()[constants.ENDPOINT]
    try:
        for wait in WAITS:
            try:
                return huggingface_hub.snapshot_download(**asked)
            except errors.HfHubHTTPError as error:
                if error.response.status_code < 500:
                    raise
            time.sleep(wait)
        return huggingface_hub.snapshot_download(**asked)
    except errors.LocalEntryNotFoundError as error:
        answered = any(isinstance(e, errors.HfHubHTTPError) for e in _chain(error))
        if not answered and not constants.HF_HUB_OFFLINE:
            _unreached()[constants.ENDPOINT] = error
        raise


@lru_cache
def _unreached() -> dict[str, Exception]:
    """Endpoints that this process could not reach, and the error."""
    return {}


def _verify(file: Path, sha256: str | None) -> None:
    """Raise SourceError unless a file has the digest that is pinned, and the one that it is kept under in the cache
    (as the hub gives it: SHA-256 of a large file, Git's of a small one)."""
    kept = file.readlink() if file.is_symlink() else file  # what it leads to may be a link to what several share
    anew = f"Delete {file.resolve()} and type the same command again: it is fetched anew"
    if sha256:
        verify(file, sha256, f"{anew}. If the hub's file is another one for good, correct lib/hub.yaml")
    elif len(kept.name) == 64:
        verify(file, kept.name, anew)
    elif len(kept.name) == 40:
        content = file.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if digest != kept.name:
            raise SourceError(f"{file} is damaged: Git's digest of it is {digest}, expected {kept.name}. {anew}")


def _told(error: BaseException, lacking: str) -> str:
    """Why something could not be had from the hub, and what to do, in one line."""
    chain = [*_chain(error)]
    status = next((e.response.status_code for e in chain if isinstance(e, errors.HfHubHTTPError)), 0)
    full = (errno.ENOSPC, errno.EDQUOT)
    unwritten = [e for e in chain if getattr(e, "filename", None) or getattr(e, "errno", None) in full]
    place, cache, later = constants.ENDPOINT, constants.HF_HUB_CACHE, "what has been fetched is kept"
    if any(isinstance(e, errors.RevisionNotFoundError) for e in chain):
        return (
            f"{place} has no such revision (404). It is misspelt, or gone from there: name one that is there "
            "(encoder.revision or task_data.glue_revision of the study; what is pinned stands in lib/hub.yaml)"
        )
    if status in (401, 403):
        return (
            f"{place} does not open it to you ({status}): its name is wrong, it is private, or your token is not "
            "valid. Correct the name, or log in with 'hf auth login' (or HF_TOKEN)"
        )
    if status == 404:
        return f"{place} does not have it (404). Correct its name in the study"
    if status == 429:
        return (
            f"{place} gets too many requests from here (429), also after waiting. Type the same command again in some "
            f"minutes: {later}"
        )
    if status >= 500:
        return f"{place} is out of order ({status}), also after waiting. Type the same command again later: {later}"
    if constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE=1 forbids asking, and {cache} lacks {lacking}. Type the same command once where there is "
            "a network, without HF_HUB_OFFLINE, or set HF_HOME to a cache that has it"
        )
    if unwritten:
        return (
            f"{cache} cannot be written ({unwritten[-1]}). Set HF_HOME to a folder that can be, or get {lacking} there"
        )
    return (
        f"{place} cannot be reached ({_first_line(chain[-1])}), and {cache} lacks {lacking}. Connect to the network, "
        "or set HF_HOME to a cache that has it"
    )


def _lacking(asked: dict[str, Any], patterns: dict[str, Any]) -> str:
    """What of a repository is not in the cache: some files, or all of it."""
    try:
        listed = [file.path for file in huggingface_hub.get_cached_repo_tree(**asked)]
    except (errors.CachedRepoTreeNotFoundError, errors.HFValidationError):
        return "it"
    wanted = huggingface_hub.utils.filter_repo_objects(listed, **patterns)
    lacking = [n for n in wanted if not isinstance(huggingface_hub.try_to_load_from_cache(filename=n, **asked), str)]
    return ", ".join(lacking) or "it"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    while error:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]
