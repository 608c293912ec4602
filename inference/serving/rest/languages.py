"""Languages by their codes (ISO 639-1, and 639-3 where there is none), as clients of transcriptions give them."""

from __future__ import annotations

from functools import cache

from ..protocol.errors import RequestError
from .fields import unsupported


@cache
def _names() -> dict[str, str]:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return dict(LANGUAGES)


def name_of(code: str) -> str:
    """The language's English name in lower case, as the API gives it; the code itself where it is not known."""
    return _names().get(code, code)


def check_language(code: str, heard: str) -> None:
    """Raises RequestError where a code is none, or not that of the language that the model hears; "" is neither."""
    if not code or code == heard:
        return
    if code not in _names():
        raise RequestError(
            f"language {code[:40]!r} is no code of a language; it must be one like 'en' (ISO 639-1)",
            "invalid_language_format",
            "language",
        )
    unsupported(f"language {code!r}: this model hears {name_of(heard)} ({heard!r})", "language")
