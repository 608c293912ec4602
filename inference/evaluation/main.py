"""`duologue evaluate`: from the command line's options to a suite. Nothing heavy is imported before one is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...checkpoints.files import expanded
from ...checkpoints.outputs import keep_apart, model_path
from ...model.errors import DuologueError

if TYPE_CHECKING:
    from .judges.endpoint import JudgeConfig

SUITES = ("s2s", "asr", "codec", "probe", "duplex", "audio_analysis", "voicebench", "latency", "compare")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for. None: not said; a suite that cannot use what was said refuses it."""

    suite: str
    output: Path
    reports: tuple[Path, ...] = ()  # of compare
    model: str | None = None
    outputs: Path | None = None  # of another system
    data: Path | None = None
    export: bool = False
    profile: str | None = None
    voices: str | None = None
    count: int | None = None
    kinds: str | None = None
    preset: str | None = None
    without: str | None = None
    beam: int | None = None
    normaliser: str | None = None
    recogniser: str | None = None
    judge: str | None = None
    judge_model: str | None = None
    utmos: str | None = None
    voice: Path | None = None
    seed: int = 0


# What each suite can use, beside output and seed.
_USES = {
    "s2s": "model outputs export profile voices count normaliser recogniser judge judge_model utmos voice",
    "asr": "model outputs data profile voices count beam normaliser",
    "codec": "data count utmos",
    "probe": "data",
    "duplex": "model outputs data export profile voices count kinds preset without recogniser judge judge_model",
    "audio_analysis": "model outputs data voices count",
    "voicebench": "model data count judge judge_model",
    "latency": "model profile voices count preset",
    "compare": "reports",
}


def run(request: Request) -> None:
    """Run a suite.

    Raises:
        DuologueError: an unknown suite, or options that do not belong to it or to each other.
    """
    suite = request.suite
    if suite not in SUITES:
        raise DuologueError(f"unknown suite {suite!r}: the suites are {', '.join(SUITES)}")
    _check(request)
    _keep_apart(request)
    if suite == "s2s":
        _s2s(request)
    elif suite == "asr":
        _asr(request)
    elif suite == "codec":
        from .suites import codec as codec_suite

        data = _needs(request.data, "codec", "--data FOLDER, which holds reference and decoded")
        codec_suite.run(data=data, out=request.output, seed=request.seed, utmos=request.utmos, limit=request.count)
    elif suite == "probe":
        from .suites import probe as probe_suite

        data = _needs(request.data, "probe", "--data FOLDER, a run of duologue train probe")
        probe_suite.run(data=data, out=request.output, seed=request.seed)
    elif suite == "duplex":
        _duplex(request)
    elif suite == "audio_analysis":
        from .suites import audio_analysis as audio_analysis_suite

        data = _needs(request.data, suite, "--data FOLDER (with a manifest) or FILE (of AIR-Bench or MMAU)")
        audio_analysis_suite.run(
            data=data, out=request.output, model=request.model, outputs=request.outputs, voices=request.voices,
            limit=request.count, seed=request.seed,
        )  # fmt: skip
    elif suite == "voicebench":
        from .suites import voicebench as voicebench_suite

        data = _needs(request.data, suite, "--data FOLDER (or file) of VoiceBench")
        voicebench_suite.run(
            data=data, out=request.output, model=request.model, judge=_judge(request), limit=request.count,
            seed=request.seed,
        )  # fmt: skip
    elif suite == "latency":
        from .suites import latency as latency_suite

        latency_suite.run(
            model=request.model or "nano", out=request.output, profile=request.profile or "quick",
            voices=request.voices, questions=request.count, preset=request.preset or "balanced", seed=request.seed,
        )  # fmt: skip
    else:
        from .report import compare

        compare.run(request.reports, request.output, seed=request.seed)


def _check(request: Request) -> None:
    given = [name for name, value in vars(request).items() if value not in (None, (), False)]
    used = {*_USES[request.suite].split(), "suite", "output", "seed"}
    strange = [name.replace("_", "-") for name in given if name not in used]
    if strange:
        raise DuologueError(f"{request.suite} has no use for --{', --'.join(strange)}")
    if request.model is not None and request.outputs is not None:
        raise DuologueError("give a model (--model), or what another system said (--outputs), and not both")
    if (request.judge is None) != (request.judge_model is None):
        raise DuologueError("a judge needs both --judge (its address) and --judge-model (its name)")


def _keep_apart(request: Request) -> None:
    """The reports' folder is none that is read, nor one that holds a file that is read."""
    read: dict[str, list[Path]] = {
        "--data": [request.data] if request.data else [],
        "--outputs": [request.outputs] if request.outputs else [],
        "a report": list(request.reports),
    }
    folders = {what: [path.parent if path.is_file() else path for path in paths] for what, paths in read.items()}
    folders["--model"] = [model_path(request.model)] if request.model else []
    folders["--utmos"] = [expanded(request.utmos)] if request.utmos else []
    keep_apart({"-o": request.output}, folders)
    if request.suite == "duplex":  # a benchmark's folder is searched for sounds; one of scenes is not
        searched = [path for path in (request.data, request.outputs) if path and not any(path.glob("*/scene.json"))]
        keep_apart({"-o": request.output}, {"the benchmark": searched}, mixes=True)


def _needs(path: Path | None, suite: str, what: str) -> Path:
    if path is None:
        raise DuologueError(f"{suite} needs {what}")
    return path


def _judge(request: Request) -> JudgeConfig | None:
    if request.judge is None or request.judge_model is None:
        return None
    from .judges.endpoint import JudgeConfig

    return JudgeConfig(url=request.judge, model=request.judge_model)


def _s2s(request: Request) -> None:
    if request.outputs is not None:
        from .inputs import foreign

        foreign.run(
            outputs=request.outputs, out=request.output, seed=request.seed,
            recogniser=request.recogniser or "pocketsphinx",
            normaliser=request.normaliser or "plain", judge=_judge(request), utmos=request.utmos, voice=request.voice,
        )  # fmt: skip
        return
    from .suites import s2s as s2s_suite

    if request.export:
        count = s2s_suite.export(
            request.output, profile=request.profile or "quick", voices=request.voices, questions=request.count,
            seed=request.seed,
        )  # fmt: skip
        print(f"{count} questions in {request.output}: add ID.wav and ID.txt for each, then give it as --outputs")
        return
    s2s_suite.run(
        model=request.model or "nano", out=request.output, profile=request.profile or "quick", voices=request.voices,
        questions=request.count, seed=request.seed, recogniser=request.recogniser or "pocketsphinx",
        judge=_judge(request),
        utmos=request.utmos,
    )  # fmt: skip


def _asr(request: Request) -> None:
    from .suites import asr as asr_suite

    asr_suite.run(
        out=request.output, model=None if request.outputs is not None else request.model or "nano",
        outputs=request.outputs, data=request.data, profile=request.profile or "quick", voices=request.voices,
        limit=request.count, beam=request.beam or 4, how=request.normaliser or "english", seed=request.seed,
    )  # fmt: skip


def _duplex(request: Request) -> None:
    from ..session.policy import PRESETS
    from ..session.state import SessionConfig
    from .suites import duplex as duplex_suite
    from .suites import full_duplex_bench

    preset = request.preset or "balanced"
    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    benchmark = request.data or request.outputs
    if benchmark is not None and (request.data is not None or full_duplex_bench.is_root(benchmark)):
        full_duplex_bench.run(
            data=benchmark, out=request.output,
            model=None if request.outputs is not None else request.model or "nano",
            config=SessionConfig(duplex=PRESETS[preset]), recogniser=request.recogniser or "pocketsphinx",
            judge=_judge(request), limit=request.count, seed=request.seed,
        )  # fmt: skip
        return
    duplex_suite.run(
        model=request.model or "nano", out=request.output, profile=request.profile or "quick", voices=request.voices,
        scenes=request.count, kinds=tuple(filter(None, (request.kinds or "").split(","))), preset=preset,
        without=tuple((request.without or "").split(",")), seed=request.seed, outputs=request.outputs,
        export=request.export,
    )  # fmt: skip
