"""Written instructions become what people say aloud, with answers that can be spoken: by a chat model.

It is done by LLaMA-Omni's rules: fillers where people use them, numbers in words, nothing that cannot be
said, short; then it answers, short as well, without lists or brackets. What breaks a rule is asked for once more, and
left out if that does not help. The result is a file of conversations in our own form for the recipe `turns`.

Source: Fang et al., "LLaMA-Omni" (arXiv 2409.06666), section 3 (InstructS2S-200K), in prompts of our own.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from ...checkpoints.files import expanded, write_json_lines
from ...checkpoints.outputs import keep_apart
from ...model.errors import DuologueError
from ..datasets.conversations import WrittenConversation, WrittenTurn, entry_of, read_conversations
from ..text.endpoint import Endpoint, Messages, RefusedError
from ..text.plain_text import plain

STEPS = ("rewrite", "answer")
REWRITE_PROMPT = (
    "You are given an instruction that somebody typed. Put it the way a person would say it aloud to a voice "
    "assistant. Keep what is asked and every fact that is needed to answer it. Talk casually; now and then begin or "
    "pause with a small filler such as um, well, so, or you know. Say numbers, signs and abbreviations in words. Leave "
    "out whatever cannot be spoken: lists, tables, code, links, brackets, markup. Use one paragraph of at most "
    "{max_words} words. Do not answer it. Give the spoken instruction and nothing else."
)
ANSWER_PROMPT = (
    "You are a voice assistant, and your words are read aloud. Answer what the person says directly and kindly in one "
    "to three short sentences, at most {max_words} words in all. Use plain words only: numbers and signs written out "
    "as words, no lists, no brackets, no markup, no code, no links."
)
AGAIN_PROMPT = "That cannot be read aloud: {problem}. Say it once more, keeping to every rule."


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: file of conversations without recordings (see conversations.py)
    out: file of conversations; the journal of what the model said stays beside it, as OUT.answers.jsonl
    endpoint: address of an OpenAI-compatible API, such as http://localhost:8000/v1
    model: its name there
    steps: rewrite, answer, or both with a comma between; without answer the source's own replies stay
    api_key_env: the environment variable that holds the API key
    max_words: of a question or an answer
    concurrency: requests at a time
    tries: how often a request is sent when the endpoint fails for a while
    timeout_s: seconds for one request
    temperature: of the model's sampling
    """

    source: str
    out: str
    endpoint: str
    model: str
    steps: str = "rewrite,answer"
    api_key_env: str = "OPENAI_API_KEY"
    max_words: int = 50
    concurrency: int = 8
    tries: int = 6
    timeout_s: float = 120.0
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if not set(self.steps.split(",")) <= set(STEPS):
            raise DuologueError(f"steps={self.steps}: expected rewrite, answer, or rewrite,answer")
        for name in ("max_words", "concurrency", "tries"):
            if getattr(self, name) < 1:
                raise DuologueError(f"{name}={getattr(self, name)}: expected at least 1")
        if not self.timeout_s > 0 or not 0 <= self.temperature <= 2:
            raise DuologueError(
                f"timeout_s={self.timeout_s:g}, temperature={self.temperature:g}: expected more than 0, and 0 to 2"
            )


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Write the file of conversations; returns how many, how many were left out, and how many answers were asked for.

    OUT.failed.jsonl says why a conversation, or the end of one, was left out. Raises DuologueError when the source is
    wrong, the endpoint does not work, or nothing is left.
    """
    out = expanded(config.out)
    journal, failed = (out.with_name(f"{out.name}.{what}.jsonl") for what in ("answers", "failed"))
    keep_apart({"out=": out, "the journal": journal, "the list of failures": failed}, {"source=": config.source})
    conversations = read_conversations(config.source)
    heard = next((one.id for one in conversations for turn in one.turns if turn.audio or turn.reply_audio), None)
    if heard is not None:
        raise DuologueError(f"{config.source}: {heard} has recordings, which cannot be put in other words")
    endpoint = Endpoint(
        config.endpoint,
        config.model,
        key_variable=config.api_key_env,
        journal=journal,
        tries=config.tries,
        timeout_s=config.timeout_s,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, failures = [], []
    for conversation, (turns, problem) in zip(
        conversations, _all_spoken(conversations, endpoint, config, progress), strict=True
    ):
        if turns:
            rows.append(entry_of(replace(conversation, turns=tuple(turns))))
        if problem:
            failures.append({"id": conversation.id, "turn": len(turns), "reason": problem})
    if not rows:
        reason = failures[0]["reason"] if failures else "there are none"
        raise DuologueError(f"none of the conversations of {config.source} could be used, the first because: {reason}")
    write_json_lines(failed, failures)
    write_json_lines(out, rows)
    return {
        "conversations": len(rows),
        "turns": sum(len(row["turns"]) for row in rows),
        "failed": len(failures),
        "asked": endpoint.asked,
        "remembered": endpoint.remembered,
    }


Spoken = tuple[list[WrittenTurn], str]  # the turns of a conversation, and why it ends early or ""


def _all_spoken(
    conversations: list[WrittenConversation], endpoint: Endpoint, config: Config, progress: bool
) -> list[Spoken]:
    """In their order, `concurrency` at a time. The first error of the endpoint ends it; what was answered is kept."""
    from rich.progress import Progress

    with Progress(disable=not progress) as bar, ThreadPoolExecutor(config.concurrency) as pool:
        task = bar.add_task("rewrite", total=len(conversations))

        def work(conversation: WrittenConversation) -> Spoken:
            spoken = speak(conversation, endpoint, config)
            bar.advance(task)
            return spoken

        futures = [pool.submit(work, conversation) for conversation in conversations]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((future for future in futures if future.done() and future.exception()), None)
            if failed is not None:
                failed.result()
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def speak(conversation: WrittenConversation, endpoint: Endpoint, config: Config) -> Spoken:
    """One conversation as it is spoken, up to the first turn that cannot be; later ones would hang in the air."""
    steps = config.steps.split(",")
    turns: list[WrittenTurn] = []
    history: Messages = []
    rules = {step: prompt.format(max_words=config.max_words) for step, prompt in
             (("rewrite", REWRITE_PROMPT), ("answer", ANSWER_PROMPT))}  # fmt: skip
    if conversation.system:
        rules["answer"] += f"\n\n{conversation.system}"

    def ask(messages: Messages) -> str:
        return _obeying(lambda more: endpoint.ask([*messages, *more], config.temperature), config.max_words)

    for turn in conversation.turns:
        try:
            text, reply = turn.text or "", turn.reply
            if "rewrite" in steps:
                text = ask([{"role": "system", "content": rules["rewrite"]}, {"role": "user", "content": text}])
            if turn.respond:
                asked = f"{text}\n{turn.instruction}" if turn.instruction else text
                history.append({"role": "user", "content": asked})
                if "answer" in steps:
                    reply = ask([{"role": "system", "content": rules["answer"]}, *history])
                history.append({"role": "assistant", "content": reply or ""})
        except RefusedError as error:
            return turns, str(error)
        same = reply == turn.reply  # another reply may have another slot, and is better than others
        slot, rejected = (turn.slot, turn.rejected) if same else (None, ())
        turns.append(replace(turn, text=text, reply=reply, slot=slot, rejected=rejected))
    return turns, "" if turns else "it has no turns"


def _obeying(answer: Callable[[Messages], str], max_words: int) -> str:
    """An answer that can be said, at the second attempt at the latest. Raises RefusedError."""
    said = answer([])
    problem = broken_rule(said, max_words)
    if problem:
        complaint = AGAIN_PROMPT.format(problem=problem)
        said = answer([{"role": "assistant", "content": said}, {"role": "user", "content": complaint}])
        problem = broken_rule(said, max_words)
    if problem:
        raise RefusedError(f"the model keeps breaking the rules: {problem}")
    return " ".join(said.split())


def broken_rule(text: str, max_words: int) -> str:
    """Which rule of spoken text is broken, "" for none."""
    for sign, what in (("()[]{}", "brackets"), ("0123456789", "digits")):
        if set(sign) & set(text):
            return f"it has {what}"
    letters = "".join("a" if c.isalpha() and not c.isascii() else c for c in text)  # those of any script can be said
    try:
        words = plain(letters).split()
    except DuologueError as error:
        return str(error)
    return f"it has {len(words)} words, more than {max_words}" if len(words) > max_words else ""
