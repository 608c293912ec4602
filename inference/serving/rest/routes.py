"""All endpoints of this folder."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.formparsers import MultiPartParser

from ..app import Service
from . import speech, transcriptions
from .chat import completions


def add_routes(app: FastAPI, service: Service) -> None:
    """The endpoints, as far as the loaded model can serve them."""
    MultiPartParser.spool_max_size = service.config.access.request_bytes  # no recording goes to disk
    for endpoint in (transcriptions, speech, completions):
        endpoint.add(app, service)
