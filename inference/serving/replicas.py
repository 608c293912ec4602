"""The same application several times over, on one machine or on many: a deployment of Ray Serve (`duologue[replicas]`).

    serve run duologue.inference.serving.replicas:app model=nano replicas=2

Ray Serve listens on port 8000 (before it, `serve start --http-host 0.0.0.0` for other machines), gives each connection
to the replica that has fewer, and starts a replica anew that has died. A conversation is one WebSocket, so it stays at
the replica where it began: that is all the affinity there is need of, for requests over HTTP are complete in
themselves. Each replica has its own admission control: whoever meets a full one is refused (503) and may try again.
`/metrics` is one replica's, whichever answers. Keys are read from DUOLOGUE_API_KEY, with spaces between, where the
command runs.

Ray waits 15 s for its own agents to start, a number that no setting changes (its issue 65983), and then gives up with
"the current node timed out during startup": on a machine that is busy with other things, it may need another try.
"""

import os

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.serve import Application  # pyright: ignore[reportMissingImports]

from .app import ServeConfig, create_app
from .http.access import AccessConfig
from .workers.pool import WorkerPoolConfig

_ONGOING = 1_000  # requests at a replica before Ray lets more wait outside: our admission control refuses long before


class Replicas(BaseModel):
    """Arguments of the command, KEY=VALUE.

    model: a bundled name, a folder that every machine can read, or a hub id. cpus: that Ray sets aside for each.
    workers, sessions: of each replica, see :class:`~.workers.pool.WorkerPoolConfig`.
    allow_host: names that it goes by, with commas between, besides addresses in digits and its machine's own.
    grace_s: that conversations have to end in when a replica is stopped.
    """

    model_config = ConfigDict(extra="forbid")
    model: str = "nano"
    replicas: int = 2
    cpus: float = 1.0
    workers: int = 0
    sessions: int | None = None
    sessions_per_key: int | None = None
    allow_host: str = ""
    grace_s: float = 30.0


@serve.ingress()
class Replica:
    """One copy of the service in a process of its own."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config

    def __serve_build_asgi_app__(self) -> FastAPI:
        import torch

        from ..assistant.loading import load

        torch.set_num_threads(1)
        self._served = create_app(self._config, load(self._config.model))
        return self._served

    def check_health(self) -> None:
        """Raises if it is to be started anew."""
        pool = self._served.state.service.pool
        if pool is not None and (pool.stuck or not pool.alive):
            raise RuntimeError("a worker has ended, or does not come back from what it does")


def app(arguments: Replicas) -> Application:
    """What `serve run` deploys."""
    config = ServeConfig(
        model=arguments.model,
        pool=WorkerPoolConfig(workers=arguments.workers, sessions=arguments.sessions),
        access=AccessConfig(
            keys=tuple(os.environ.get("DUOLOGUE_API_KEY", "").split()),
            sessions_per_key=arguments.sessions_per_key,
            bound="0.0.0.0",  # Ray listens, where it is told to
            hosts=tuple(filter(None, arguments.allow_host.split(","))),
        ),
        grace_s=arguments.grace_s,
    )
    deployed = serve.deployment(
        name="duologue",
        num_replicas=arguments.replicas,
        ray_actor_options={"num_cpus": arguments.cpus},
        max_ongoing_requests=_ONGOING,
        graceful_shutdown_timeout_s=arguments.grace_s,
    )(Replica)
    return deployed.bind(config)
