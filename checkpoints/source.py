"""Where a model comes from: a bundled name, a folder, or a hub id, each resolved to a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from ..model.errors import DuologueError
from .files import expanded

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
CARD, CARD_FACTS = "README.md", "card.json"
WORDS = "words.arpa.gz"
# Models that are folders beside this file, and how one that is not there is made.
BUNDLED = {
    "nano": "training/presets/nano.sh makes it",
    "mini": "training/mini.sh makes it",
    "nano-codec": "duologue train codec, then duologue assemble FOLDER codec=RUN make one; name "
    "another's folder with --model",
}
_FOREIGN_FILES = [
    "*.json", "*.safetensors", "*.bin", "*.pt", "*.th", "*.ckpt", "*.yaml", "*.txt", "*.model", "*.jinja", "g_*",
]  # fmt: skip
_HUB_FILES = [
    CONFIG, WEIGHTS, TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", CARD,
    CARD_FACTS, WORDS,
]  # fmt: skip


def resolve(name_or_path: str | Path) -> Path:
    """The local folder of a model: bundled name first, then a folder, then the hub (downloaded once, then cached)."""
    name = str(name_or_path)
    if not name:
        raise DuologueError("the model's name is empty; give a bundled name, a folder or a hub id")
    if name in BUNDLED:
        folder = Path(__file__).parent / name
        if not (folder / CONFIG).is_file():
            raise DuologueError(f"the bundled model {name!r} is not in this copy: {BUNDLED[name]}")
        return folder
    folder = expanded(name)
    try:
        if not folder.exists() and previous(folder).is_dir():
            folder = previous(folder)  # a save was cut off between its two renames
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:  # a name that no file system takes
        raise DuologueError(f"{_cut(name)!r} names no folder: {_cut(str(error))}") from None
    if is_folder:
        return folder
    if exists:
        raise DuologueError(f"{name} is a file; a model is a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}")
    return _download(name)


def previous(folder: Path) -> Path:
    """Where the old checkpoint waits while the new one takes its place."""
    return folder.parent / f".{folder.name}.previous"


def resolve_foreign(name: str) -> Path:
    """The local file or folder of weights to import: a path, or a hub id, whose files are downloaded once.

    Raises:
        DuologueError: neither.
    """
    path = expanded(name)
    if name and path.exists():
        return path
    return _download(name, _FOREIGN_FILES)


def _download(name: str, patterns: list[str] = _HUB_FILES) -> Path:
    """A hub id to its cached folder."""
    start = f"unknown model {name!r}: not a bundled name ({', '.join(BUNDLED)}), not a folder"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise DuologueError(f"{start}, and not a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except RepositoryNotFoundError:
        raise DuologueError(f"{start}, and the hub has no such public repository") from None
    except HFValidationError:
        raise DuologueError(f"{start}, and not a hub id") from None
    except OfflineModeIsEnabled:
        raise DuologueError(f"{start}, and the hub could not be reached: HF_HUB_OFFLINE is set") from None
    except LocalEntryNotFoundError as error:
        cause = one_line(error.__cause__ or error)
        raise DuologueError(f"{start}, and the hub could not be reached: {cause}") from None
    except OSError as error:
        raise DuologueError(f"{start}, and the hub could not be read: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """An exception's message on one line of at most 160 characters."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
