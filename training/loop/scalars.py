"""TensorBoard's event file, written at once and by whole records: a full disk neither ends a run nor damages it.

(torch's SummaryWriter writes in a thread of its own, which a failed write ends for good, with a traceback.)
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Scalars:
    """The curves of a run. What cannot be written is kept, and written with what comes next.

    Args:
        folder: of the run.
        first: the step that the run goes on from; curves of an earlier run end there.
    """

    def __init__(self, folder: Path, first: int) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self.path = folder / name
        self.fault: str | None = None  # why the last write failed
        self._size = 0  # bytes of whole records
        self._awaiting = b""
        self._record(file_version="brain.Event:2")
        if first:
            from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

            self._record(step=first, session_log=SessionLog(status=SessionLog.START))

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Add a point to each curve, and write."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in values.items():
            self._record(step=step, summary=scalar(name, float(value)))
        try:
            with open(self.path, "ab") as file:
                file.truncate(self._size)  # of a write that failed
                file.write(self._awaiting)
        except OSError as error:
            self.fault = f"cannot write {self.path}: {error.strerror or error}"
            return
        self._size += len(self._awaiting)
        self._awaiting, self.fault = b"", None

    def _record(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **fields).SerializeToString())
        self._awaiting += record.getvalue()
