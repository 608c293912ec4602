"""A reply judged by a chat model behind an OpenAI-compatible endpoint: LLaMA-Omni's two criteria, and benchmarks'.

Content: does the reply answer what was asked? Style: is it fit to be spoken (short, no lists, no brackets)? Both from 1
to 5; of the reply's text (S2TIF) and of what a recogniser heard in its speech (S2SIF). The prompts are our own
(``prompts.toml``).

Sources: LLaMA-Omni (arXiv 2409.06666), section 5.2; Full-Duplex-Bench v1.5 (arXiv 2507.23159), behaviour categories.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ....data_prep.text.endpoint import Endpoint, Messages
from ....model.errors import DuologueError

KEY_VARIABLE = "OPENAI_API_KEY"
_PROMPTS: dict[str, str] = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
BEHAVIOURS = ("respond", "resume", "uncertain", "unknown")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Where the judge is. The API key is read from OPENAI_API_KEY."""

    url: str  # such as http://localhost:8000/v1
    model: str


class EndpointJudge:
    """Asks the same only once: answers are kept in ``journal``.

    Raises DuologueError when the endpoint fails, or answers a request twice with something that is no grade.
    """

    def __init__(self, config: JudgeConfig, journal: Path) -> None:
        self.endpoint = Endpoint(config.url, config.model, key_variable=KEY_VARIABLE, journal=journal)

    def content_and_style(self, question: str, reply: str) -> tuple[float, float]:
        """Both from 1 to 5."""
        pattern = r"content\D*([1-5]).*?style\D*([1-5])"
        found = self._ask("content_and_style", pattern, question=question, reply=reply)
        return float(found[1]), float(found[2])

    def score(self, question: str, reply: str) -> float:
        """VoiceBench's open questions: 1 to 5."""
        return float(self._ask("score", r"([1-5])", question=question, reply=reply)[1])

    def agrees(self, question: str, reference: str, reply: str) -> bool:
        """VoiceBench's questions with a reference answer."""
        found = self._ask("agrees", r"\b(yes|no)\b", question=question, reference=reference, reply=reply)
        return found[1].lower() == "yes"

    def related(self, context: str, question: str, reply: str) -> float:
        """Full-Duplex-Bench's rating after an interruption: 0 to 5."""
        return float(self._ask("related", r"([0-5])", context=context, question=question, reply=reply)[1])

    def behaviour(self, context: str, overlap: str, before: str, reply: str) -> str:
        """Full-Duplex-Bench v1.5: what a system did when it was talked over, one of BEHAVIOURS."""
        pattern = rf"\b({'|'.join(BEHAVIOURS)})\b"
        fields = {"context": context, "overlap": overlap, "before": before or "nothing", "reply": reply}
        return self._ask("behaviour", pattern, **fields)[1].lower()

    def _ask(self, prompt: str, pattern: str, **fields: str) -> re.Match[str]:
        text = _PROMPTS[prompt].format(**fields)
        messages: Messages = [{"role": "system", "content": _PROMPTS["system"]}, {"role": "user", "content": text}]
        for reminder in ("", " Keep to the form."):
            messages[-1]["content"] = text + reminder
            answer = self.endpoint.ask(messages, temperature=0.0)
            found = re.search(pattern, answer, re.IGNORECASE | re.DOTALL)
            if found:
                return found
        raise DuologueError(f"the judge {self.endpoint.model!r} gave no grade, but: {' '.join(answer.split())[:120]!r}")
