"""Small tokenizers with chat templates of the kinds that language models have, for tests without anybody's weights."""

from __future__ import annotations

from typing import Any

import torch
from tiny_assistant import Loudness
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from duologue.inference.assistant.assistant import Assistant
from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoderConfig
from duologue.model.speech_decoder.unit_decoder import UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoderConfig
from duologue.model.speech_lm import SpeechLM, SpeechLMConfig
from duologue.model.tokens import TokenLayout

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


def chat_assistant(kind: str = "chatml", *, speech: bool = True, template: str | None = None) -> Assistant:
    """A Whisper encoder for whole clips, an adaptor, a Llama with a chat template and a voice, all tiny and random."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer(kind)
    if template is not None:
        tokenizer.chat_template = template
    spare, units = len(tokenizer), 20
    decoder = UnitDecoderConfig(in_dim=32, dim=32, layers=1, heads=2, ffn_dim=64, units=units, upsample=8, band=20)
    config = SpeechLMConfig(
        mel=LogMelConfig(n_mels=80, norm="whisper"),
        encoder=WhisperEncoderConfig(n_mels=80, n_audio_state=24, n_audio_head=2, n_audio_layer=1),
        adaptor=StackConfig(in_dim=24, hidden_dim=32, out_dim=32, stack=4),
        llm={
            "model_type": "llama", "vocab_size": spare + 2, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        },
        unit_decoder=decoder if speech else None,
        vocoder=UnitVocoderConfig(
            units=units, embedding_dim=16, channels=32, resblock_kernels=(3,), duration_hidden=16
        ) if speech else None,
        layout=TokenLayout(bos=spare, pad=spare + 1, eos=tokenizer.eos_token_id, units=units if speech else 0,
                           text=(tokenizer.eos_token_id + 1, spare)),
        prompt=None,
    )  # fmt: skip
    model = SpeechLM(config).read_by(tokenizer)
    return Assistant(model, tokenizer, vad=Loudness())


def brief(assistant: Assistant) -> Assistant:
    """Let one token in six end a reply, so that what is generated at random is soon over."""
    assert isinstance(assistant.model, SpeechLM)
    layout = assistant.model.layout
    assistant.model.prompt.ends = frozenset({layout.eos, *range(0, layout.text[1], 6)})
    return assistant
