"""What a backend's failure to list its models comes to, in a few words."""

from __future__ import annotations

import os
import re
from http import HTTPStatus

from bridge.errors import GenerationError

_ERRNO = re.compile(r"cannot be reached: .*\[Errno (\d+)\]", re.DOTALL)


def why(error: GenerationError, backend: str) -> str:
    """What `Backend.probe` of ``backend`` raised, without the backend's name.

    The error's own advice is about a completion, and is left out where the backend
    says that there is no such path.
    """
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        status = HTTPStatus(error.status)
        return f"answered {status.value} {status.phrase}"
    refused = _ERRNO.search(error.message)
    if refused is not None:
        # Without the address, which is shown beside it.
        return f"cannot be reached: {os.strerror(int(refused[1]))}"
    return error.message.removeprefix(f"backend {backend} ").removeprefix(
        "the backend "
    )


def reason(error: GenerationError, backend: str) -> str:
    """The same, without its verb where it could not even be reached."""
    return why(error, backend).removeprefix("cannot be reached: ")
