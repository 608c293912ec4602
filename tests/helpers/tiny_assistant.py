"""A whole speech-to-speech model with random weights and nano's words, small enough to answer in a moment; and a
loudness detector, in the place of a VAD."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from duologue.checkpoints import store
from duologue.data_prep.nano.vocabulary import token_ids, tokenizer_json
from duologue.inference.assistant.assistant import Assistant
from duologue.model.adaptor.adaptor import AdaptorState
from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.manner import MannerConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoderConfig
from duologue.model.duplex.vad import WINDOW
from duologue.model.speech_decoder.unit_decoder import UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoderConfig
from duologue.model.speech_lm import PromptConfig, SpeechLM, SpeechLMConfig
from duologue.model.streaming import Streaming
from duologue.model.tokens import TokenLayout

UNITS = 20
SCRIPT = "<transcript> what is seven plus forty two <reply> it makes the number nine <eos>"  # no token twice
HEARD, SAID = "what is seven plus forty two", "it makes the number nine"


def tiny_config(*, speech: bool = True, manners: tuple[str, ...] = ()) -> SpeechLMConfig:
    """nano's shape in small; without ``speech`` it replies in text alone; with ``manners`` it tells those apart."""
    ids = token_ids()
    marker = {name: ids[f"<{name}>"] for name in ("bos", "eos", "pad", "user", "speech", "transcript", "reply")}
    layout = TokenLayout(text=(ids["<reserved4>"] + 1, len(ids)), units=UNITS if speech else 0, **marker)
    return SpeechLMConfig(
        mel=LogMelConfig(n_mels=16),
        encoder=WhisperEncoderConfig(
            n_mels=16, n_audio_ctx=500, n_audio_state=32, n_audio_head=2, n_audio_layer=1, chunk=8, left_context=48,
            causal_conv=True,
        ),
        adaptor=StackConfig(in_dim=32, hidden_dim=32, out_dim=32, stack=4),
        llm={
            "model_type": "llama", "vocab_size": len(ids), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "bos_token_id": ids["<bos>"], "eos_token_id": ids["<eos>"], "pad_token_id": ids["<pad>"],
        },
        unit_decoder=UnitDecoderConfig(
            in_dim=32, dim=32, layers=1, heads=2, ffn_dim=64, units=UNITS, upsample=25, band=20, fuse_token=True,
            sub_position=True, blank_bias=-2.0,
        ) if speech else None,
        vocoder=UnitVocoderConfig(
            units=UNITS, embedding_dim=16, channels=32, resblock_kernels=(3,), duration_hidden=16
        ) if speech else None,
        manner=MannerConfig(in_dim=32, classes=manners) if manners else None,
        layout=layout,
        prompt=PromptConfig(
            prefix_ids=(ids["<bos>"], ids["<user>"]),
            suffix_ids=(ids["<transcript>"],),
            next_prefix_ids=(ids["<user>"],),
        ),
    )  # fmt: skip


def tiny_assistant(
    *, speech: bool = True, scripted: bool = True, seed: int = 0, manners: tuple[str, ...] = ()
) -> Assistant:
    """Random weights; scripted: the language model's are set so that it writes SCRIPT, whatever it hears or reads."""
    torch.manual_seed(seed)
    model = SpeechLM(tiny_config(speech=speech, manners=manners))
    if scripted:
        _follow(model, SCRIPT)
    if speech:
        _babble(model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(tokenizer_json()))
        tokenizer = store.load_tokenizer(Path(folder))
    return Assistant(model.read_by(tokenizer), tokenizer, vad=Loudness())


@torch.no_grad()
def _follow(model: SpeechLM, script: str) -> None:
    """Let each token of ``script`` be followed by the next: layers add nothing, and the output layer is a table."""
    lm = model.llm.lm
    for name, weight in lm.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
            weight.zero_()
    embeddings = torch.nn.functional.normalize(torch.randn_like(lm.get_input_embeddings().weight), dim=1)
    lm.get_input_embeddings().weight.copy_(embeddings)
    tokens = [token_ids()[token] for token in script.split()]
    for token, following in itertools.pairwise(tokens):
        lm.get_output_embeddings().weight[following] = embeddings[token]


@torch.no_grad()
def _babble(model: SpeechLM) -> None:
    """Let the unit decoder say many different units, each one frame long (at random it says one)."""
    assert model.unit_decoder is not None and model.vocoder is not None
    model.unit_decoder.sub_position.normal_()
    model.unit_decoder.output_proj.weight.normal_()
    model.vocoder.duration.proj.bias.fill_(0.7)  # exp(0.7) - 1: 1 frame, 20 ms


class Loudness(Streaming):
    """Probability 1 for windows louder than a whisper."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x, self.init_state(x.shape[0]))

    def init_state(self, batch_size: int = 1) -> AdaptorState:
        return AdaptorState(pending=torch.zeros(batch_size, 0))

    def step(self, x: torch.Tensor, state: AdaptorState) -> torch.Tensor:
        x = torch.cat([state.pending, x], dim=1)
        count = x.shape[1] // WINDOW
        state.pending = x[:, count * WINDOW :].clone()
        return (x[:, : count * WINDOW].reshape(len(x), count, WINDOW).abs().mean(-1) > 0.01).float()
