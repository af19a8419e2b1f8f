"""Which cell serves a request, where a deployment has several.

Past what one log's stream carries, a deployment is split into cells: each is a prefix
with streams of its own. Whoever submits, reads or cancels a request has to pick the
same one, in any language::

    cell = CRC-32 of "<tenant>/<id>" in UTF-8, modulo the number of prefixes

The CRC is that of IEEE 802.3, as in zlib, gzip and PNG. The order of the prefixes
counts, and changing their number moves requests: do it while none are under way, or
read the old ones with the old list.
"""

from __future__ import annotations

from uuid import uuid4
from zlib import crc32


def cell_of(tenant: str, id: str, cells: int) -> int:
    """The index of the prefix that serves request ``id`` of ``tenant``.

    ``cells`` is the number of prefixes. Raises `ValueError` where it is below 1.
    """
    if cells < 1:
        raise ValueError("a deployment has at least one cell")
    return crc32(f"{tenant}/{id}".encode(errors="replace")) % cells


def request_id(
    tenant: str, id: str | None, session: str | None, *, supersede: bool, cells: int
) -> str:
    """``id``, or where there is none, a new one in the cell of its session.

    Raises `ValueError` for an id of the caller's own that is to supersede and is in
    another cell than its session.
    """
    if id is None:
        return _new_id(tenant, session, cells)
    if supersede and session and not _together(tenant, id, session, cells):
        raise ValueError(
            "with several prefixes, supersede works within one of them: leave id "
            "out, and one in the session's cell is made up"
        )
    return id


def _new_id(tenant: str, session: str | None, cells: int) -> str:
    while True:
        id = f"req-{uuid4().hex}"
        if session is None or _together(tenant, id, session, cells):
            return id


def _together(tenant: str, id: str, session: str, cells: int) -> bool:
    return cell_of(tenant, id, cells) == cell_of(tenant, session, cells)
