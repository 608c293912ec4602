"""LLaMA-Omni against numbers from its own code (tests/golden/llama_omni, tiny random weights).

The golden folder keeps the foreign names. Left out of it is what can be derived: the encoder's sinusoids, and the mel
of the silence behind the three seconds of sound, which is constant.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from duologue.checkpoints.config_io import config_from_dict, config_to_dict
from duologue.checkpoints.importers.llama_omni import convert
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import PromptConfig, Sampling, SpeechLM, SpeechLMConfig, TokenKind
from duologue.training.losses.ctc_units import ctc_unit_frames, ctc_unit_loss

GOLDEN = Path(__file__).parents[2] / "golden" / "llama_omni"
TOKENS = 24


def whisper_positions(length, channels):
    """openai-whisper's sinusoids."""
    scales = np.exp(-np.log(10000) / (channels // 2 - 1) * np.arange(channels // 2))
    angles = np.arange(length)[:, None] * scales[None]
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).float()


def foreign_weights():
    return {
        **load_file(GOLDEN / "model.safetensors"),
        "model.speech_encoder.positional_embedding": whisper_positions(1500, 64),
    }


def foreign_config():
    return json.loads((GOLDEN / "config.json").read_text())


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def prompt(expected):
    """What stands before and after the speech, marked by -200."""
    ids = expected["input_ids"][0].tolist()
    at = ids.index(-200)
    return PromptConfig(prefix_ids=tuple(ids[:at]), suffix_ids=tuple(ids[at + 1 :]), next_prefix_ids=(2,))


@pytest.fixture(scope="module")
def model(prompt):
    config, weights = convert(foreign_weights(), foreign_config(), prompt, encoder_heads=4)
    ours = SpeechLM(config).eval().requires_grad_(False)
    ours.load_state_dict(weights, strict=True)
    return ours


def ready(model, expected, chunk=7001):
    """A conversation that has heard the golden waveform."""
    state = model.init_state()
    model.begin_turn(state)
    for piece in expected["waveform"].split(chunk):
        model.listen(piece[None], state)
    model.end_turn(state)
    return state


def check(output, reference):
    assert output.shape == reference.shape
    assert float((output - reference).norm() / reference.norm()) < 1e-5


def test_mel(model, expected):
    mel = model.mel(F.pad(expected["waveform"][None], (0, 480_000 - 48_000)))[0]
    assert mel.shape == (80, 3000)
    check(mel[:, :304], expected["mel"])
    check(mel[:, 304:], expected["mel"][:, -1:].expand(-1, 2696))


def test_encoder(model, expected):
    mel = torch.cat([expected["mel"], expected["mel"][:, -1:].expand(-1, 2696)], dim=1)
    check(model.encoder(mel[None]), expected["encoder_output"])


def test_adaptor(model, expected):
    check(model.adaptor(expected["encoder_output"]), expected["projected"])
    check(model.stages.hearing(expected["waveform"][None]), expected["projected"])


def test_first_logits(model, expected, prompt):
    parts = [model.llm.embed(torch.tensor([ids])) for ids in (prompt.prefix_ids, prompt.suffix_ids)]
    embeds = torch.cat([parts[0], expected["projected"], parts[1]], dim=1)
    check(embeds, expected["inputs_embeds"])
    check(model.llm(embeds).logits[:, -1], expected["first_logits"])
    state = ready(model, expected)
    assert state.llm.length == 320
    check(model.llm.head(state.hidden)[:, -1], expected["first_logits"])


def test_reply_token_by_token(model, expected):
    """Tokens, states and, after each of the 24 tokens, the units, although each token is decoded once only."""
    state = ready(model, expected)
    wanted = json.loads((GOLDEN / "units_after_each_token.json").read_text())
    tokens, states, units = [], [], []
    for so_far in wanted:
        step = model.reply_step(state, Sampling())
        assert step.kind is TokenKind.REPLY
        assert step.position == 320 + len(tokens)
        tokens.append(step.token)
        states.append(state.hidden)
        units += step.units[0].tolist()
        assert units == so_far, f"after token {len(tokens)}"
    assert tokens == expected["text_tokens"].tolist()
    assert len(tokens) == TOKENS
    check(torch.cat(states, dim=1), expected["last_hidden_states"])


def test_units_of_the_whole_reply_at_once(model, expected):
    logits = model.unit_decoder(expected["last_hidden_states"])
    units = model.stages.speech.collapse(logits)[0].tolist()
    assert units == json.loads((GOLDEN / "units_after_each_token.json").read_text())[-1]


def test_ctc_loss(model, expected):
    units = expected["ctc_loss_targets"]
    lengths = torch.tensor([TOKENS])
    frames = ctc_unit_frames(lengths, units, 25)
    logits = model.unit_decoder(expected["last_hidden_states"], lengths=lengths, frames=frames)
    check(ctc_unit_loss(logits, frames, units)[None], expected["ctc_loss"])


def test_the_config_survives_a_file(model):
    stored = json.loads(json.dumps(config_to_dict(model.config)))
    assert config_from_dict(SpeechLMConfig, stored) == model.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctc_decoder_config": "2,64,4,160"}, "ctc_decoder_config"),
        ({"speech_projector_type": "qformer"}, "speech_projector_type = 'qformer'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_unknown_variant_is_refused(prompt, change, message):
    with pytest.raises(DuologueError, match=message):
        convert(foreign_weights(), foreign_config() | change, prompt, encoder_heads=4)


def test_missing_fields_and_unknown_tensors_are_named(prompt):
    config = foreign_config()
    del config["ctc_upsample_factor"]
    with pytest.raises(DuologueError, match="lacks 'ctc_upsample_factor'"):
        convert(foreign_weights(), config, prompt, encoder_heads=4)
    extra = foreign_weights() | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}
    with pytest.raises(DuologueError, match=r"model\.layers\.0\.self_attn\.q_proj\.bias"):
        convert(extra, foreign_config(), prompt, encoder_heads=4)
    learnt = foreign_weights()
    learnt["model.speech_encoder.positional_embedding"] = torch.randn(1500, 64)
    with pytest.raises(DuologueError, match="learnt positions"):
        convert(learnt, foreign_config(), prompt, encoder_heads=4)
    without = foreign_weights()
    del without["model.speech_encoder.conv1.weight"]
    with pytest.raises(DuologueError, match=r"lacks the tensor model\.speech_encoder\.conv1\.weight"):
        convert(without, foreign_config(), prompt, encoder_heads=4)
