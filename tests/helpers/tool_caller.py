"""A tiny chat model that was taught by heart when to call its one tool, for tests of function calls.

Asked with the tool at hand, it calls it; told the result, it says it; without the tool, it says something else; and
where nothing has been said yet, it greets.
"""

from __future__ import annotations

import functools
from typing import Any

import soxr
import torch
from tiny_chat import TOOL, chat_assistant

from duologue.inference.assistant.assistant import Assistant
from duologue.model.language_model.chat_template import SPEECH, Given
from duologue.model.speech_lm import SpeechLM

TEMPLATE = (  # of the kind of Qwen's and Hermes'
    "{% if tools or messages[0]['role'] == 'system' %}<|im_start|>system\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"
    "{% for t in tools or [] %}\n{{ t | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m['role'] != 'system' or not loop.first %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTION = "What is the weather in Wien?"
ARGUMENTS = '{"place": "Wien"}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
RESULT, TOLD, UNTOLD, GREETING = "rain", "It is lovely in Wien.", "What?", "It's Paris!"


def tool_caller(*, patient: bool = False) -> Assistant:
    """The model; it takes seconds to teach. patient: it knows what to do after its greeting too, and who calls on a
    telephone."""
    assistant = chat_assistant(template=TEMPLATE)
    assert isinstance(assistant.model, SpeechLM)
    assistant.model.load_state_dict(_taught(patient))
    return assistant


@functools.cache
def _taught(patient: bool) -> dict[str, torch.Tensor]:
    assistant = chat_assistant(template=TEMPLATE)
    assert isinstance(assistant.model, SpeechLM)
    _teach(assistant.model, patient)
    return assistant.model.state_dict()


def _teach(model: SpeechLM, patient: bool) -> None:
    template = model.prompt.template  # type: ignore[attr-defined]
    user = {"role": "user", "content": QUESTION}
    spans = [(1.0, 0.16), (1.0, 0.32), (1.0, 0.5)]
    sounds = [_heard(model, *span) for span in spans]
    sounds += [_heard(model, *span, telephone=True) for span in spans] if patient else [_heard(model, 1.4, 0.24)]
    heard = [({"role": "user", "content": [Given((SPEECH,) * len(sound))]}, sound) for sound in sounds]
    asked: list[tuple[dict[str, Any], torch.Tensor | None]] = [(user, None), *heard]
    function = {"name": "weather", "arguments": {"place": "Wien"}}
    calls = [{"id": "call00000", "type": "function", "function": function}]
    call = {"role": "assistant", "content": "", "tool_calls": calls}
    result = {"role": "tool", "content": RESULT, "tool_call_id": "call00000", "name": "weather"}
    system = {"role": "system", "content": "Greet."}
    rows = [([one], (TOOL,), CALL, sound) for one, sound in asked]
    rows += [([one, call, result], (TOOL,), TOLD, sound) for one, sound in asked]
    silent = {"role": "user", "content": ""}
    if patient:
        greeted = [silent, {"role": "assistant", "content": GREETING}]
        quoted = {**result, "content": f'"{RESULT}"'}  # as some clients send it
        rows += [([*greeted, one], (TOOL,), CALL, sound) for one, sound in heard]
        rows += [([*greeted, one, call, result], (TOOL,), TOLD, sound) for one, sound in heard]
        rows += [([*greeted, one, call, quoted], (TOOL,), TOLD, sound) for one, sound in heard[:3]]
    else:
        rows += [([one], (), UNTOLD, sound) for one, sound in asked]
    rows += [([one], tools, GREETING, None) for one in (silent, system) for tools in ((TOOL,), ())]
    texts = []
    for messages, tools, reply, sound in rows:
        before = template.write(messages, tools).ids
        texts.append((before, [*template.encode(reply), template.eos], sound))
    generator = torch.Generator().manual_seed(0)
    llm, scale = model.llm, float(model.llm.embed(torch.arange(100)).detach().std())
    learner = torch.optim.AdamW(llm.parameters(), lr=1e-2, weight_decay=0)
    most = max(len(before) + len(after) for before, after, _ in texts)
    ids = torch.zeros(len(texts), most, dtype=torch.long)
    given = torch.zeros(len(texts), most, sounds[0].shape[1])
    wanted = torch.full((len(texts), most), -100)
    speech = torch.zeros(len(texts), most, dtype=torch.bool)
    for row, (before, after, sound) in enumerate(texts):
        whole = torch.tensor([*before, *after])
        speech[row, : len(whole)] = whole == SPEECH
        if sound is not None:
            given[row, speech[row]] = sound
        ids[row, : len(whole)] = whole.clamp(min=0)
        wanted[row, len(before) - 1 : len(whole) - 1] = torch.tensor(after)
    with torch.enable_grad():
        for step in range(800):
            for group in learner.param_groups:
                group["lr"] = 1e-2 * (1 - step / 800)
            noise = torch.randn(*ids.shape, llm.embed(ids[:1, :1]).shape[-1], generator=generator) * scale
            embeds = torch.where(speech[..., None], given + 0.3 * noise, llm.embed(ids))
            hidden = llm.lm.base_model(inputs_embeds=embeds)[0]
            logits = llm.head(hidden).transpose(1, 2)
            losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")[wanted >= 0]
            if float(losses.detach().max()) < 0.02:  # each token by heart, so that rounding changes none
                break
            learner.zero_grad()
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
            learner.step()
    worst = float(losses.detach().max())
    assert worst < 0.1, f"not learnt: {worst:.3f}"


def _heard(model: SpeechLM, noise_s: float, silence_s: float, *, telephone: bool = False) -> torch.Tensor:
    """What the language model is fed of a second of noise or so, as a session hears it, (n, D)."""
    hearing = model.while_speaking().stages.hearing
    state = hearing.init_state(1)
    before, noise = torch.zeros(1, 3840), 0.1 * torch.randn(1, round(16_000 * noise_s))
    if telephone:
        noise = torch.from_numpy(soxr.resample(soxr.resample(noise[0].numpy(), 16_000, 8_000), 8_000, 16_000))[None]
    clip = torch.cat([before, noise, torch.zeros(1, round(16_000 * silence_s))], dim=1)
    with torch.no_grad():
        return torch.cat([hearing.step(clip, state), hearing.flush(state)], dim=1)[0]
