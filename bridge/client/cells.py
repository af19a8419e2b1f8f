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

from zlib import crc32


def cell_of(tenant: str, id: str, cells: int) -> int:
    """The index of the prefix that serves request ``id`` of ``tenant``.

    ``cells`` is the number of prefixes. Raises `ValueError` where it is below 1.
    """
    if cells < 1:
        raise ValueError("a deployment has at least one cell")
    return crc32(f"{tenant}/{id}".encode()) % cells
