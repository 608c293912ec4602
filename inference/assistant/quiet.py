"""What libraries have to say to programmers is not for a user's terminal."""

from __future__ import annotations

import logging
import os


def quieten() -> None:
    """For a process whose output a user sees: no advice of transformers', no complaints of an installed torchao's."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
