"""A causal language model as a model of words, for shallow fusion: as an n-gram model is one, with a longer memory.

    states (n, 1), a word for each -> log-probabilities (n,), the states behind them

A word is read as the language model's tokenizer writes it, with a space before it; its log-probability is the sum of
its tokens'. What has been read is a tree of tokens: texts share the cache of keys and values of what they have in
common, and a node is fed to the language model once something behind it is asked for, all that a step of the search
asks for in one batch. The memory of the search is bounded: what was long unused is fed again when it is needed.

A text ends where the model closes the sentence (. ? ! or a new line) or ends the document: speech has no punctuation.

Sources: shallow fusion, Gulcehre et al., "On Using Monolingual Corpora in Neural Machine Translation" (arXiv
1503.03535), section 4.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..decoding.labels import Pieces
from ..decoding.ngrams.backoff import END, MARKS
from ..errors import DuologueError
from ..layers.batching import together
from .causal_lm import LLM, LLMState

KEPT = 128  # nodes whose cache and predictions are kept
MOST = 1 << 16  # nodes that are remembered
ROOT = 0  # the node of an empty text
_CLOSING = (".", "?", "!", "\n")


@dataclass(frozen=True)
class _Fed:
    """What the language model makes of a node. state: behind its tokens. log_probs: (V,) of the next one."""

    state: LLMState
    log_probs: Tensor


class LLMWords:
    """Scores of words behind words, by a causal language model. A :class:`..decoding.fusions.WordLM`.

    Args:
        tokenizer: of transformers, the model's own.
        prompt: a text before the words, for example sentences of the kind that is expected.

    Raises:
        DuologueError: there is neither a prompt nor a token that begins or ends a document.
    """

    units = "words"  # as the labels write them

    def __init__(self, llm: LLM, tokenizer: Any, prompt: str = "") -> None:
        self.llm, self.prompt = llm, prompt
        self._pieces = Pieces(tokenizer)
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._start = [*([] if first is None else [first]), *self._pieces.encoded(prompt)]
        if not self._start:
            raise DuologueError("this tokenizer has no token that begins or ends a document; a fused language model "
                                "needs one, or a prompt")  # fmt: skip
        ends = [self._pieces.encoded(f"a{mark}")[-1] for mark in _CLOSING]
        self._ends = sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
        self._words: list[str] = list(MARKS)
        self._index = {word: at for at, word in enumerate(MARKS)}
        self._parents: dict[int, tuple[int, int]] = {}  # node -> the node before it, its token
        self._children: dict[tuple[int, int], int] = {}
        self._next = ROOT + 1  # no number stands for two nodes, however many were forgotten
        self._fed: OrderedDict[int, _Fed] = OrderedDict()  # the longest unused first

    def begin(self, n: int = 1) -> np.ndarray:
        """States (n, 1) of empty texts. The oldest half of too many nodes is forgotten: what goes on with one of them
        is scored as if its text began there."""
        if len(self._parents) > MOST:
            last = self._next - MOST // 2
            self._parents = {node: parent for node, parent in self._parents.items() if node >= last}
            self._children = {parent: node for node, parent in self._parents.items()}
        return np.full((n, 1), ROOT, np.int64)

    def ids(self, words: Sequence[str]) -> np.ndarray:
        """(n,) numbers of words, for the next :meth:`advance`."""
        if len(self._words) > MOST:
            self._words = list(MARKS)
            self._index = {word: at for at, word in enumerate(MARKS)}
        found = []
        for word in words:
            if word not in self._index:
                self._index[word] = len(self._words)
                self._words.append(word)
            found.append(self._index[word])
        return np.array(found, np.int64)

    def knows(self, word: str) -> bool:
        """It can read any word."""
        return True

    @torch.inference_mode()
    def advance(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States (n, 1), a word (n,) for each -> natural log-probabilities (n,), states (n, 1) behind the words."""
        nodes, scores = [self._there(node) for node in states[:, 0].tolist()], np.zeros(len(states))
        left = [self._tokens(node, int(word)) for node, word in zip(nodes, words, strict=True)]
        for at in range(max(map(len, left), default=0)):
            here = [row for row, tokens in enumerate(left) if len(tokens) > at]
            fed = self._feed([nodes[row] for row in here])
            for row in here:
                token, log_probs = left[row][at], fed[nodes[row]].log_probs
                if token is None:
                    scores[row] += float(log_probs[self._ends].logsumexp(0))
                else:
                    scores[row] += float(log_probs[token])
                    nodes[row] = self._child(nodes[row], token)
        return scores, np.array(nodes, np.int64)[:, None]

    def _tokens(self, node: int, word: int) -> list[int | None]:
        """What a word is behind a node; None: the end."""
        if word == MARKS.index(END):
            return [None]
        text = self._words[word]
        begins = node == ROOT and not self.prompt
        return [*(self._pieces.encoded(text) if begins else self._pieces.word(text))]

    def _there(self, node: int) -> int:
        return node if node in self._parents else ROOT

    def _child(self, node: int, token: int) -> int:
        child = self._children.setdefault((node, token), self._next)
        if child == self._next:
            self._parents[child] = node, token
            self._next += 1
        return child

    def _feed(self, nodes: Sequence[int]) -> dict[int, _Fed]:
        """What the language model makes of nodes: those that are not known are fed, parents before children."""
        known: dict[int, _Fed] = {}
        missing: list[dict[int, None]] = [dict.fromkeys(nodes)]  # and their ancestors, as far as these are missing too
        while missing[-1]:
            before: dict[int, None] = {}
            for node in list(missing[-1]):
                if node in self._fed:
                    known[node] = self._fed[node]
                    self._fed.move_to_end(node)
                elif node != ROOT:
                    before[self._there(self._parents[node][0])] = None
            missing.append(before)
        for level in reversed(missing):
            new = [node for node in level if node not in known]
            self._run([node for node in new if node == ROOT], known)  # it has no parent
            self._run([node for node in new if node not in known], known)
        self._fed.update(known)
        while len(self._fed) > KEPT:
            self._fed.popitem(last=False)
        return known

    def _run(self, nodes: list[int], known: dict[int, _Fed]) -> None:
        """Feed nodes whose parents are known, in one batch."""
        if not nodes:
            return
        device = next(self.llm.parameters()).device
        if nodes == [ROOT]:
            tokens, states = [self._start], [self.llm.init_state()]
        else:
            parents = [self._parents[node] for node in nodes]
            tokens = [[token] for _, token in parents]
            states = [known[self._there(parent)].state.clone() for parent, _ in parents]
        embeds = [self.llm.embed(torch.tensor([row], device=device)) for row in tokens]
        hidden = together(self.llm.extend, list(zip(embeds, states, strict=True)))
        log_probs = self.llm.head(torch.cat([row[:, -1] for row in hidden])).float().log_softmax(-1)  # (n, V)
        known.update({node: _Fed(state, row) for node, state, row in zip(nodes, states, log_probs, strict=True)})
