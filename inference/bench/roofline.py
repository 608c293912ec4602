"""How many conversations of a model a GPU would carry: by roofline, and measured where there is one.

In each frame of 80 ms half of the conversations listen and half are answered, all in one batch. A stage's time is the
longer of two: to read its weights once, or to compute for all. What attention reads of each conversation's past comes
on top. As many conversations fit as take half of the 80 ms. Kernels too small to fill the chip, and the time to launch
them, are in no such sum: with ``device=cuda`` the stages are run, with random weights, and timed.

Source: Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4) (2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.files import write_json
from ...checkpoints.store import device_of, dtype_of, read_model_config
from ...checkpoints.weights import made_on, without_storage
from ...model.audio_encoder.windowed import WindowConfig
from ...model.errors import DuologueError
from ...model.speech_decoder.spelling_decoder import SpellingDecoder
from ...model.speech_decoder.unit_vocoder import UnitVocoder
from ...model.speech_lm import SpeechLM
from ...model.speech_lm_config import SpeechLMConfig
from ..session.policy import FRAME_MS

GPUS = {  # bytes a second of memory; dense 16-bit floating-point operations a second: as their makers state them
    "l4": (300e9, 121e12), "a100": (2039e9, 312e12), "h100": (3350e9, 989e12), "h200": (4800e9, 989e12),
}  # fmt: skip
FRACTION = 0.5  # of the 80 ms: the rest is for what comes all at once
CONTEXT = 400  # positions of the language model behind which a step stands
TOKENS_S = 3.0  # of a reply, a second of its speech; of an adaptor that hears tokens, a second of speech
LETTERS = 5  # of a token
CONVERSATIONS = (1, 16, 64, 256, 1024)
_FRAMES_S = 50  # of encoder and vocoder


@dataclass(frozen=True)
class StageWork:
    """What one stage does.

    weights: that it reads. used: multiplications at a position. positions: a frame, of a conversation in which it runs.
    past: bytes that a conversation's step reads beside them.
    """

    name: str
    weights: int
    used: int
    positions: float
    past: int = 0


@dataclass(frozen=True)
class Bound:
    """conversations: that fit. by: what takes longest then: a stage, and "memory", "arithmetic" or "past"."""

    conversations: int
    by: tuple[str, str]


def works_of(config: SpeechLMConfig, size: int = 2) -> list[StageWork]:
    """The stages of a model whose weights have ``size`` bytes."""
    with without_storage():
        model = SpeechLM(config)
    frame_s = FRAME_MS / 1000
    window = None if config.streams else config.window or WindowConfig()
    again = 1.0 if window is None else (window.left_ms + window.chunk_ms + window.right_ms) / window.chunk_ms
    heard = TOKENS_S if model.hears_words else float(model.stages.hearing.rate) * model.input_rate
    lm = model.llm.lm.config
    heads = getattr(lm, "num_key_value_heads", None) or lm.num_attention_heads
    width = getattr(lm, "head_dim", None) or lm.hidden_size // lm.num_attention_heads
    weights, past = _count(model.llm), 2 * model.llm.layers * heads * width * CONTEXT * size
    if not lm.tie_word_embeddings:  # those of the input are looked up
        weights -= _count(model.llm.lm.get_input_embeddings())
    encoder, adaptor = _count(model.encoder), _count(model.adaptor)
    works = [
        StageWork("encoder", encoder, encoder, again * _FRAMES_S * frame_s),
        StageWork("adaptor", adaptor, adaptor, _FRAMES_S * frame_s),
        StageWork("llm", weights, weights, (heard + TOKENS_S) * frame_s, past),
    ]
    if model.unit_decoder is not None:
        used, letters = _count(model.unit_decoder), LETTERS if isinstance(model.unit_decoder, SpellingDecoder) else 1
        positions = model.unit_decoder.config.upsample * letters * TOKENS_S * frame_s
        works.append(StageWork("unit decoder", used, used, positions))
    if model.vocoder is not None:
        used = _count(model.vocoder)
        if isinstance(model.vocoder, UnitVocoder) and config.vocoder.source_filter is None:  # type: ignore[union-attr]
            used = _upsampled(model.vocoder)
        works.append(StageWork("vocoder", _count(model.vocoder), used, _FRAMES_S * frame_s))
    return works


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _upsampled(vocoder: UnitVocoder) -> int:
    """Multiplications a frame of a generator whose layers run at rising rates."""
    from torch.utils.flop_counter import FlopCounterMode

    frames = torch.empty(1, vocoder.config.embedding_dim, _FRAMES_S, device="meta")
    with FlopCounterMode(display=False) as counter:
        vocoder.generator.to("meta")(frames)
    return int(counter.get_total_flops()) // (2 * _FRAMES_S)


def spent_s(
    works: list[StageWork], conversations: int, memory: float, arithmetic: float, size: int = 2
) -> dict[tuple[str, str], float]:
    """Seconds that each stage takes for a frame of so many conversations, half of them heard and half answered, by what
    bounds it."""
    spent: dict[tuple[str, str], float] = {}
    for work in works:
        read, computed = work.weights * size / memory, conversations / 2 * work.positions * 2 * work.used / arithmetic
        spent[work.name, "memory" if read >= computed else "arithmetic"] = max(read, computed)
        if work.past:
            spent[work.name, "past"] = conversations / 2 * min(1.0, work.positions) * work.past / memory
    return spent


def bound(works: list[StageWork], memory: float, arithmetic: float, size: int = 2) -> Bound:
    """How many conversations fit into FRACTION of a frame; 0: not one."""

    def fits(count: int) -> bool:
        return sum(spent_s(works, count, memory, arithmetic, size).values()) <= FRACTION * FRAME_MS / 1000

    low, high = 0, 1
    while fits(high) and high < 2**24:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    spent = spent_s(works, max(1, low), memory, arithmetic, size)
    return Bound(low, max(spent, key=lambda what: spent[what]))


@torch.inference_mode()
def measure(config: SpeechLMConfig, conversations: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds of each stage's step for a frame of so many conversations on a device, with random weights.

    The language model takes one position of each behind CONTEXT of them: more than it has to on average.
    """
    with made_on(device, dtype):
        model = SpeechLM(config).eval()
    half = max(1, conversations // 2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    def timed(step: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            _wait(device)
            began = time.perf_counter()
            step()
            _wait(device)
            times.append(time.perf_counter() - began)
        return 1e3 * min(times[1:])

    state = model.llm.init_state()
    model.llm.extend(random(half, CONTEXT, model.llm.hidden_size), state)
    spent = {"llm": timed(lambda: model.llm.extend(random(half, 1, model.llm.hidden_size), state))}
    mel = 100 * FRAME_MS // 1000
    if config.streams:
        heard = model.encoder.init_state(half)
        frame = random(half, config.mel.n_mels, mel)
        spent["encoder"] = timed(lambda: [model.encoder.step(frame, heard) for _ in range(2)]) / 2
    else:
        window = config.window or WindowConfig()
        clip = (window.left_ms + window.chunk_ms + window.right_ms) // 10
        rows = max(1, half * FRAME_MS // window.chunk_ms)  # a chunk comes every few frames
        spent["encoder"] = timed(lambda: model.encoder(random(rows, config.mel.n_mels, clip)))
    if isinstance(model.vocoder, UnitVocoder):
        frames = random(half, config.vocoder.embedding_dim, _FRAMES_S * FRAME_MS // 1000)  # type: ignore[union-attr]
        generator = model.vocoder.generator
        made: Any = generator.init_state(half)
        spent["vocoder"] = timed(lambda: generator.step(frames, made))
    return spent


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run(
    *, out: Path | None, say: Callable[[str], None], model: str = "nano", gpus: tuple[str, ...] = tuple(GPUS),
    device: str = "", dtype: str = "bfloat16", conversations: tuple[int, ...] = CONVERSATIONS,
) -> dict[str, Any]:  # fmt: skip
    """Compute for each GPU; with ``device``, measure on it; write roofline.json to ``out``.

    Raises:
        DuologueError: no such model, GPU or device.
    """
    for gpu in gpus:
        if gpu not in GPUS:
            raise DuologueError(f"gpu is {gpu!r}; it must be one of {', '.join(GPUS)}")
    config, precision = read_model_config(model), dtype_of(dtype)
    size = torch.empty(0, dtype=precision).element_size()
    works = works_of(config, size)
    say(f"{model}, {dtype}: what a frame of {FRAME_MS} ms takes")
    for work in works:
        mib, mflop = work.weights * size / 2**20, 2e-6 * work.positions * work.used
        say(f"  {work.name:<14}{mib:>9.1f} MiB of weights{mflop:>11.2f} MFLOP a conversation")
    found: dict[str, Any] = {"model": model, "dtype": dtype, "stages": [asdict(work) for work in works], "gpus": {}}
    for gpu in gpus:
        most = bound(works, *GPUS[gpu], size)
        found["gpus"][gpu] = asdict(most)
        say(f"  {gpu:<14}{most.conversations:>9,} conversations at most, bound by {most.by[0]}: {most.by[1]}")
    if device:
        place, found["measured"] = device_of(device), {}
        for count in conversations:
            spent = measure(config, count, place, precision)
            found["measured"][count] = spent
            each = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
            say(f"  {count:>9,} conversations on {device}: {sum(spent.values()):.2f} ms a frame ({each})")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "roofline.json", found)
    return found
