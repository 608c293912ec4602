"""nano's words: every word the grammar can say, and the word-level tokenizer made of them."""

from __future__ import annotations

import functools
import string
from pathlib import Path
from typing import Any

from ...checkpoints.files import write_json
from ..recipes import sounds as hearing
from ..text.spoken import LETTERS, NUMBER_WORDS
from .asides import BACK_CHANNELS, STOPS
from .domain import KINDS
from .facts import MONTHS, REPEAT_WORDS
from .sentences import FRAMES
from .small_talk import INTERJECTIONS, LEAD_INS, TRAILERS

SPECIAL_TOKENS = (
    "<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<speech>", "<transcript>", "<reply>", "<query>", "<noise>", "<wait>",
    "<reserved0>", "<reserved1>", "<reserved2>", "<reserved3>", "<reserved4>",
)  # fmt: skip


@functools.cache
def words() -> tuple[str, ...]:
    """Every word of every question, answer, filler and drill, sorted."""
    texts: list[str] = [*LETTERS, *NUMBER_WORDS, *REPEAT_WORDS, *INTERJECTIONS, *LEAD_INS, *TRAILERS, *MONTHS]
    texts += [*hearing.texts(), *STOPS, *BACK_CHANNELS]
    texts += [frame.format("") for frame in FRAMES]
    for kind in KINDS:
        for template in kind.templates:
            texts.append(
                template.format_map({name: "" for _, name, _, _ in string.Formatter().parse(template) if name})
            )
        for operands in kind.domain if isinstance(kind.domain, tuple) else ():
            answer = kind.solve(operands)
            texts += [answer.reply, *answer.fields.values()]
    return tuple(sorted({word for text in texts for word in text.split()}))


@functools.cache
def token_ids() -> dict[str, int]:
    """{token: id}: the special tokens first, in their order, then the words in theirs."""
    return {token: at for at, token in enumerate((*SPECIAL_TOKENS, *words()))}


def tokenizer_json() -> dict[str, Any]:
    """The `tokenizers` library's description of the tokenizer: split at white space, one id a word."""
    ids = token_ids()
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for token in SPECIAL_TOKENS
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
    }  # fmt: skip


def save_tokenizer(folder: str | Path) -> Path:
    """Write tokenizer.json, which transformers.PreTrainedTokenizerFast(tokenizer_file=...) loads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    write_json(path, tokenizer_json(), indent=0)
    return path
