"""What the speech of a reply costs, made token by token our way and the reference's way.

Ours: the unit decoder keeps keys and values and computes each token's frames once; the vocoder keeps its convolutions'
states. The reference's schedule (LLaMA-Omni, arXiv 2409.06666, section 2.5, as its code runs it): after every token the
unit decoder runs over the whole prefix again, and the vocoder speaks pieces of 40 units without context. Both have the
same weights and take turns in the same process, so that a busy machine slows both.

Weights are random, for cost does not depend on them; what a token becomes is therefore set, not decoded: so many units,
each so many frames long. Decoding itself runs in full. The schedules themselves: bench_schedules.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...checkpoints.files import write_json
from ...checkpoints.store import device_of, dtype_of
from ...checkpoints.weights import made, made_on
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from .plot import write_plot
from .schedules import PIECE, Cost, ScheduleCost, Sizes, Stopwatch, TimedSpeechDecoder, exponent, sizes_of, with_width


@torch.no_grad()
def arithmetic(config: UnitDecoderConfig, tokens: int) -> dict[str, float]:
    """Floating-point operations of a reply's units by both schedules, full attention, counted on shapes alone.

    A step over a context of t tokens takes a + b t operations, a pass over a prefix of t takes a t + b t²: two counts
    of each give them all.
    """
    decoder = made(lambda: UnitDecoder(dataclasses.replace(config, band=None))).to("meta")

    def fed(t: int) -> tuple[Tensor, Tensor | None]:
        hidden = torch.empty(1, t, config.in_dim, device="meta")
        return hidden, hidden if config.fuse_token else None

    def step(t: int) -> int:
        state = decoder.init_state()
        before, fused = fed(t - 1)
        decoder.step(before, state, fused)
        token, fused = fed(1)
        with FlopCounterMode(display=False) as counter:
            decoder.step(token, state, fused)
        return counter.get_total_flops()

    def whole(t: int) -> int:
        with FlopCounterMode(display=False) as counter:
            decoder(*fed(t))
        return counter.get_total_flops()

    second, one = step(2), whole(1)
    slope = (step(tokens) - second) / (tokens - 2)
    square = (whole(tokens) / tokens - one) / (tokens - 1)
    ours = sum(second + slope * (t - 2) for t in range(1, tokens + 1))
    reference = sum((one - square) * t + square * t * t for t in range(1, tokens + 1))
    return {"ours": ours, "reference": reference, "ratio": reference / ours}


@torch.inference_mode()
def measure(sizes: Sizes, tokens: int, device: torch.device, dtype: torch.dtype, load: ScheduleCost) -> dict[str, Any]:
    """One width: ours with full attention, ours with a band of 20 tokens and of 1, and the reference.

    A band of one token has no attention to the past, so its exponent is that of all else.
    """
    torch.manual_seed(0)
    plain = dataclasses.replace(sizes, unit_decoder=dataclasses.replace(sizes.unit_decoder, band=None))
    with made_on(device, dtype):
        speech = TimedSpeechDecoder(plain, load).eval()
    hidden = torch.randn(1, tokens, sizes.unit_decoder.in_dim, device=device, dtype=dtype)
    speech.ours(hidden[:, :4])  # an operation's first run is slower than the rest
    speech.reference(hidden[:, :4])
    costs: dict[str, Cost] = {}
    unit_decoder: Any = speech.unit_decoder
    for name, band in (("ours", None), ("ours, band of 20", 20), ("ours, no attention to the past", 1)):
        decoder = dataclasses.replace(plain.unit_decoder, band=band)
        unit_decoder.config = decoder
        costs[name] = _faster(speech.ours(hidden), speech.ours(hidden))
    unit_decoder.config = plain.unit_decoder
    costs["reference"] = speech.reference(hidden)
    fractions = _fractions(speech, hidden)
    lengths = [n for n in (tokens // 8, tokens // 4, tokens // 2, tokens) if n >= 4]
    rows = {
        name: {
            "unit_decoder_s": cost.total("unit_decoder"),
            "vocoder_s": cost.total("vocoder"),
            "first_audio_ms": None if cost.first_audio_s is None else 1e3 * cost.first_audio_s,
            "exponent": exponent(cost, "unit_decoder", lengths),
            "token_ms": [1e3 * seconds for seconds in cost.spent["unit_decoder"]],
        }
        for name, cost in costs.items()
    }
    ratio = rows["reference"]["unit_decoder_s"] / rows["ours"]["unit_decoder_s"]  # type: ignore[operator]
    return {"width": sizes.unit_decoder.dim, "tokens": tokens, "schedules": rows, "ratio": ratio, "reached": fractions,
            "flops": arithmetic(sizes.unit_decoder, tokens)}  # fmt: skip


def _faster(*costs: Cost) -> Cost:
    """The less disturbed of several runs."""
    return min(costs, key=lambda cost: cost.total("unit_decoder"))


def _fractions(speech: TimedSpeechDecoder, hidden: Tensor) -> dict[str, dict[str, float]]:
    """What each stage reaches, see :func:`reached`, over eight tokens."""
    few = hidden[:, :8]
    fused = speech.beside(few, lambda states: states)
    units = speech.set_units(few.shape[1], few.device)

    def decode() -> None:
        state = speech.unit_decoder.init_state()
        for t in range(few.shape[1]):
            step = fused[:, t : t + 1] if fused is not None else None
            speech.unit_decoder.step(few[:, t : t + 1], state, step)  # type: ignore[arg-type]

    def speak() -> None:
        state = speech.vocoder.init_state()
        for piece in units.split(speech.load.units, dim=1):
            speech.vocoder.step(piece, state)

    steps = few.shape[1]
    return {
        "unit_decoder": reached(speech.unit_decoder, decode, steps),
        "vocoder": reached(speech.vocoder, speak, steps),
    }


def reached(module: nn.Module, work: Callable[[], None], steps: int) -> dict[str, float]:
    """Shares of this device's arithmetic and memory bandwidth that ``work`` reaches in ``steps`` steps.

    Of the arithmetic of a large matrix product, and of the bandwidth of a large copy, both measured here; each step
    reads all weights of the module once. The larger fraction says what the stage is bound by; both small: by overhead.
    """
    weight = next(module.parameters())
    with FlopCounterMode(display=False) as counter:
        work()
    watch = Stopwatch(weight.device)
    watch.token(("work", "product", "copy"))
    size = 8192 if weight.device.type == "cuda" else 1024
    square = torch.randn(size, size, device=weight.device, dtype=weight.dtype)
    long = torch.zeros(2**26, device=weight.device, dtype=torch.uint8)

    def timed() -> Tensor:
        work()
        return square

    for _ in range(3):
        watch.run("product", lambda: square @ square)
        watch.run("copy", lambda: long.clone())
        watch.run("work", timed)
    seconds = {stage: spent[0] / 3 for stage, spent in watch.spent.items()}
    flops, bandwidth = 2 * size**3 / seconds["product"], 2 * long.numel() / seconds["copy"]
    moved = steps * sum(p.numel() * p.element_size() for p in module.parameters())
    return {
        "arithmetic": counter.get_total_flops() / seconds["work"] / flops,
        "bandwidth": moved / seconds["work"] / bandwidth,
        "ms_a_token": 1e3 * seconds["work"] / steps,
    }


@torch.inference_mode()
def measure_llm(sizes: Sizes, device: torch.device, dtype: torch.dtype, heard: int = 300) -> dict[str, Any]:
    """The language model before them: reading what was heard, then a token a step; and what a step reaches."""
    with made_on(device, dtype):
        llm = LLM(sizes.llm).eval()
    speech = torch.randn(1, heard, llm.hidden_size, device=device, dtype=dtype)
    watch = Stopwatch(device)
    watch.token(("prefill",))
    llm.extend(speech, llm.init_state())
    state = llm.init_state()
    watch.run("prefill", lambda: llm.extend(speech, state))

    def steps() -> None:
        for _ in range(8):
            llm.step(speech[:, :1], state)

    return {"heard": heard, "prefill_ms": 1e3 * watch.spent["prefill"][0], "reached": reached(llm, steps, 8)}


def run(
    *,
    out: Path | None,
    say: Callable[[str], None],
    preset: str = "nano",
    widths: tuple[int, ...] = (),
    tokens: int = 100,
    device: str = "cpu",
    dtype: str = "float32",
) -> dict[str, Any]:
    """Measure, print a table, and write report.json and report.html to ``out``.

    The language model is measured as well where it fits: nano's anywhere, LLaMA-Omni's on a GPU.

    Raises:
        DuologueError: an unknown preset, device or dtype, or a width that does not fit.
    """
    sizes = sizes_of(preset)
    place, kind = device_of(device), dtype_of(dtype)
    if any(width < 1 for width in widths):
        raise DuologueError(f"widths is {widths}; each must be at least 1")
    if tokens < 8:
        raise DuologueError(f"tokens is {tokens}; it must be at least 8")
    load = ScheduleCost()
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        task = progress.add_task(f"{preset} on {place}", total=len(widths) or 1)
        found = []
        for width in widths or (sizes.unit_decoder.dim,):
            found.append(measure(with_width(sizes, width), tokens, place, kind, load))
            progress.advance(task)
    llm = measure_llm(sizes, place, kind) if preset == "nano" or place.type == "cuda" else None
    report = {
        "preset": preset, "device": str(place), "dtype": dtype, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "load": dataclasses.asdict(load), "piece": PIECE, "widths": found, "llm": llm,
    }  # fmt: skip
    for line in table(report):
        say(line)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "report.json", report)
        say(f"{write_plot(out, report, table(report))}: table and plot")
    return report


def table(report: dict[str, Any]) -> list[str]:
    """The figures as lines of text."""
    lines = []
    for found in report["widths"]:
        decoder = found["reached"]["unit_decoder"]
        vocoder = found["reached"]["vocoder"]
        lines.append(f"unit decoder {found['width']} wide, a reply of {found['tokens']} tokens")
        lines.append(f"  {'schedule':<32}{'units':>10}{'vocoder':>10}{'total':>10}{'first audio':>14}{'exponent':>10}")
        for name, row in found["schedules"].items():
            total = row["unit_decoder_s"] + row["vocoder_s"]
            first = "-" if row["first_audio_ms"] is None else f"{row['first_audio_ms']:.0f} ms"
            grows = "-" if row["exponent"] is None else f"{row['exponent']:.2f}"
            times = "".join(f"{seconds:>8.2f} s" for seconds in (row["unit_decoder_s"], row["vocoder_s"], total))
            lines.append(f"  {name:<32}{times}{first:>14}{grows:>10}")
        counted = f"{found['flops']['ratio']:.1f} times the arithmetic"
        lines.append(f"  the reference's units cost {found['ratio']:.1f} times ours in time, {counted}")
        for name, stage in (("unit decoder", decoder), ("vocoder", vocoder)):
            lines.append(_reached(name, stage))
    if report["llm"] is not None:
        llm = report["llm"]
        lines.append(f"language model: {llm['heard']} embeddings of speech read in {llm['prefill_ms']:.0f} ms")
        lines.append(_reached("language model", llm["reached"]))
    return lines


def _reached(name: str, stage: dict[str, float]) -> str:
    fractions = f"{stage['arithmetic']:.0%} of the arithmetic, {stage['bandwidth']:.0%} of the bandwidth of this device"
    return f"  {name}: {stage['ms_a_token']:.1f} ms a token, {fractions}"
