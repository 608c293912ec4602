"""A chat model behind an OpenAI-compatible endpoint, asked many things at once, each of them once.

Answers are kept in a journal (see journal.py). So a run that is broken off goes on where it stopped without asking, or
paying, twice.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...checkpoints.files import broken
from ...model.errors import DuologueError
from .journal import Journal, key_of

_LATER = "run the command again to go on"

Messages = list[dict[str, str]]


class RefusedError(DuologueError):
    """The endpoint will not answer this one thing (too long, filtered); others it may."""


class Endpoint:
    """`ask` may be called from any number of threads.

    Args:
        url: of the API, such as http://localhost:8000/v1.
        model: its name there.
        key_variable: the environment variable that holds the API key; one that is not set is no key.
        journal: file of the answers so far; made if need be.
        tries: how often a request that fails for a while (no connection, too many requests, an error of the server) is
            sent in all, with growing pauses, or those that the server asks for.
        timeout_s: seconds for one request.
    """

    def __init__(
        self, url: str, model: str, *, key_variable: str, journal: Path, tries: int = 6, timeout_s: float = 120.0
    ) -> None:
        from openai import OpenAI

        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise DuologueError(f"endpoint={url}: expected an address such as http://localhost:8000/v1")
        self.url, self.model, self.tries = url, model, tries
        self.key_variable = key_variable
        key = os.environ.get(key_variable) or "none"
        self.client = OpenAI(base_url=url, api_key=key, max_retries=tries - 1, timeout=timeout_s)
        self.asked = self.remembered = 0
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Lock] = {}
        self._journal = Journal(journal)

    def ask(self, messages: Messages, temperature: float = 0.7) -> str:
        """The model's answer, from the journal or from the endpoint.

        Raises RefusedError where only this request is at fault, DuologueError where no other would fare better.
        """
        if any(broken(message["content"]) for message in messages):
            raise RefusedError("the text has half a surrogate pair, which is no character and cannot be sent")
        request: dict[str, Any] = {"model": self.model, "messages": messages, "temperature": temperature}
        key = key_of(request)
        with self._lock:
            same = self._under_way.setdefault(key, threading.Lock())
        with same:  # who asks the same at the same time waits for the answer
            if key in self._journal:
                with self._lock:
                    self.remembered += 1
                return self._journal[key]
            answer = self._send(request)
            with self._lock:
                self.asked += 1
                self._journal.add({key: answer})
            return answer

    def _send(self, request: dict[str, Any]) -> str:
        import openai

        try:
            completion = self.client.chat.completions.create(**request)
            return completion.choices[0].message.content or ""
        except openai.APITimeoutError:
            raise DuologueError(f"{self.url} did not answer in time, {self.tries} times; {_LATER}") from None
        except openai.APIConnectionError as error:
            raise DuologueError(f"{self.url} cannot be reached: {error.__cause__ or error}; {_LATER}") from None
        except openai.APIStatusError as error:
            raise self._explained(error.status_code, _reason(error)) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise DuologueError(f"{self.url} does not speak the chat-completions protocol: {error!r:.200}") from None

    def _explained(self, status: int, reason: str) -> DuologueError:
        if status in (400, 413, 422):
            return RefusedError(f"{self.url} refused with status {status}: {reason}")
        if status in (401, 403):
            return DuologueError(f"{self.url} wants another API key than the one in {self.key_variable}: {reason}")
        if status == 404:
            return DuologueError(f"{self.url} has no model {self.model!r}, or is no such API: {reason}")
        return DuologueError(f"{self.url} failed with status {status}, {self.tries} times: {reason}; {_LATER}")


def _reason(error: Any) -> str:
    """What the server says, one line."""
    said = error.body.get("message") if isinstance(error.body, dict) else error.body
    return " ".join(str(said or error).split())[:200]
