"""Small tokenizers with chat templates of the kinds that language models have, for tests without anybody's weights."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "You are a helpful assistant. What is the capital of France? The capital of France is Paris. It's lovely!",
    "Wie heißt die Hauptstadt von Österreich? Wien. 法国的首都是哪里？ 巴黎。",
    '{"name": "weather", "arguments": {}}',
)  # fmt: skip
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (  # header ids, as Llama 3's; tools in the first user message
    "{{ bos_token }}{% for m in messages %}"
    "<|start_header_id|>{{ 'ipython' if m['role'] == 'tool' else m['role'] }}<|end_header_id|>\n\n"
    "{% if tools and m['role'] == 'user' and loop.index0 <= 1 %}Functions: {{ tools | tojson }}\n\n{% endif %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}"
    "{% else %}{{ m['content'] | trim }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST = (  # [INST], as Mistral's; SentencePiece; the system prompt in the first user message
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}[INST] {{ system if loop.first else '' }}{{ m['content'] }} [/INST]"
    "{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = (  # no system role, as Gemma's
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
BOS_INSIDE = (  # BOS before every user message, tools in the system message
    "{% if tools %}<|system|>\n{{ tools | tojson }}</s>\n{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token }}{% endif %}<|{{ m['role'] }}|>\n"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<|call|>{{ c.function.name }} {{ c.function.arguments | tojson }}"
    "{% endfor %}{% else %}{{ m['content'] }}{% endif %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# By kind: the template, its special tokens (the last ends a reply), BOS, and whether it is of SentencePiece's kind.
TEMPLATES: dict[str, tuple[str | None, tuple[str, ...], str | None, bool]] = {
    "chatml": (CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, False),
    "headers": (HEADERS, ("<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|begin|>", False),
    "inst": (INST, ("<s>", "</s>"), "<s>", True),
    "no_system": (NO_SYSTEM, ("<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", False),
    "bos_inside": (BOS_INSIDE, ("<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|call|>", "</s>"), "<s>", False),
    "none": (None, ("<|end|>",), "<|end|>", False),
}  # fmt: skip


def chat_tokenizer(kind: str = "chatml") -> Any:
    """A fast tokenizer of 400 to 500 tokens, learnt from TEXT, with the template of that kind."""
    template, special, bos, pieces = TEMPLATES[kind]
    bare = Tokenizer(models.BPE(byte_fallback=pieces))
    if pieces:
        bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        bare.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = [chr(code) for code in range(32, 127)] + [f"<0x{code:02X}>" for code in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*special, *alphabet[95:]],
                                      initial_alphabet=alphabet[:95], show_progress=False)  # fmt: skip
    else:
        bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet,
                                      show_progress=False)  # fmt: skip
    bare.train_from_iterator(TEXT * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=special[-1], bos_token=bos)
    fast.add_special_tokens({"additional_special_tokens": [t for t in special if t not in (special[-1], bos)]})
    fast.chat_template = template
    return fast
