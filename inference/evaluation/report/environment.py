"""What figures were measured on and with: machine, threads, load, versions of packages and synthesisers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ....data_prep.speech.engines.espeak import espeak_command

PACKAGES = (
    "torch", "transformers", "numpy", "soxr", "soundfile", "pocketsphinx", "jiwer", "whisper-normalizer", "speechmos",
    "onnxruntime", "pesq", "pystoi", "resemblyzer", "silero-vad", "lhotse",
)  # fmt: skip
SYNTHESISERS = ("espeak-ng", "flite", "festival")


def environment() -> dict[str, Any]:
    """What the figures were measured on and with."""
    import torch

    versions: dict[str, str | None] = {}
    for package in ("duologue", *PACKAGES):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "load_average": os.getloadavg()[0],
        "versions": versions,
        "synthesisers": {name: _first_line([*_command(name), "--version"]) for name in SYNTHESISERS},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _command(synthesiser: str) -> list[str]:
    return (espeak_command() if synthesiser == "espeak-ng" else None) or [synthesiser]


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return " ".join(lines[0].split()) if lines else None
