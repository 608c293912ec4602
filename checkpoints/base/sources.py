"""Where the files of base weights come from: the user's folder, and otherwise the hub. Each is checked by its SHA-256.

DUOLOGUE_WEIGHTS       folders, ``:`` between them: FOLDER/REPOSITORY/NAME, FOLDER/NAME, or any file with these bytes
DUOLOGUE_WEIGHTS_ANY   1: files of those names are taken whatever their bytes, with a warning
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ...model.errors import DuologueError
from ..files import expanded
from ..program import say_progress
from ..source import one_line
from .declared import BaseFile, BaseWeights

FOLDERS, ANY = "DUOLOGUE_WEIGHTS", "DUOLOGUE_WEIGHTS_ANY"


def takes_any() -> bool:
    """Whether the user asked for files with other bytes."""
    return os.environ.get(ANY, "0").lower() not in ("", "0", "false", "no")


def named(base: BaseWeights) -> list[Path]:
    """The files of these names in the user's folders, whatever their bytes; empty where one is missing."""
    found = [next(_places(base, file), None) for file in base.files]
    return [path for path in found if path is not None] if None not in found else []


def obtain(part: str, base: BaseWeights, file: BaseFile) -> Path:
    """A local file with the bytes of ``file``; with others only where the user takes any.

    Raises:
        DuologueError: it is in none of the user's folders, and the hub cannot be reached or does not have it; or its
            bytes are others.
    """
    others = []
    for path in _places(base, file):
        if _is(path, file):
            return path
        others.append(path)
    for path in _files():
        if path not in others and _is(path, file):
            return path
    if others and not takes_any():
        raise DuologueError(_refusal(others[0], base, file, "take it away"))
    path = others[0] if others else _fetch(part, base, file)
    if not _is(path, file) and not takes_any():
        raise DuologueError(_refusal(path, base, file, "remove it to fetch it again"))
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is(path: Path, file: BaseFile) -> bool:
    return path.stat().st_size == file.size and digest(path) == file.sha256


def _folders() -> list[Path]:
    return [expanded(folder) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]


def _places(base: BaseWeights, file: BaseFile) -> Iterator[Path]:
    """Where the user's folders have a file of that name."""
    for folder in _folders():
        if not folder.is_dir():
            raise DuologueError(f"{FOLDERS} is {os.environ[FOLDERS]!r}; there is no folder {folder}")
        for path in (folder / base.hub.rpartition("/")[2] / file.name, folder / file.name):
            if path.is_file():
                yield path


def _files() -> Iterator[Path]:
    """All files below the user's folders."""
    for folder in _folders():
        for place, _, names in os.walk(folder):
            yield from (path for name in sorted(names) if (path := Path(place) / name).is_file())


def _refusal(path: Path, base: BaseWeights, file: BaseFile, remedy: str) -> str:
    return (
        f"{path} is not the {file.name} of {base.hub} that this model was made with: it has {path.stat().st_size} "
        f"bytes and the SHA-256 {digest(path)}, not {file.size} and {file.sha256}; {remedy}, or set {ANY}=1 to use it"
    )


def _fetch(part: str, base: BaseWeights, file: BaseFile) -> Path:
    """The file from the hub, or from where its own cache has it. What a broken connection left is continued."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(there := try_to_load_from_cache(base.hub, file.name, revision=base.revision), str):
        return Path(there)
    try:
        get_hf_file_metadata(hf_hub_url(base.hub, file.name, revision=base.revision))  # a download would try for long
        say_progress(f"the {part} needs {file.name} of {base.hub} ({file.size / 1e6:.0f} MB, {base.licence}), once")
        return Path(hf_hub_download(base.hub, file.name, revision=base.revision))
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:  # no such repository, revision or file
        reason = f"the hub does not give it: {one_line(error)}"
    except Exception as error:  # of many kinds: no network, a broken connection, a full disk
        reason = f"it could not be fetched from the hub: {one_line(error)}"
    raise DuologueError(
        f"the {part} of this model is {file.name} ({file.size / 1e6:.0f} MB) of {base.hub} at {base.revision}, and "
        f"{reason}. Put the file into a folder and set {FOLDERS} to it"
    )
