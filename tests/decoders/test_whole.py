from __future__ import annotations

import pytest

from bridge.decoders import Record
from bridge.decoders.whole import MAX_BODY_BYTES, WholeDecoder
from bridge.errors import BackendProtocolError


@pytest.mark.parametrize(
    ("body", "records"),
    [
        ('{"a":\n"é€😀"}\n'.encode(), [Record('{"a":\n"é€😀"}\n'.encode())]),
        (b"\xef\xbb\xbf{}", [Record(b"{}")]),
        (b"", []),
        (b" \r\n", []),
    ],
)
def test_the_body_is_one_record_at_its_end(body: bytes, records: list[Record]) -> None:
    for step in (1, 2, 3, len(body) or 1):
        decoder = WholeDecoder()
        for i in range(0, len(body), step):
            assert decoder.receive_data(body[i : i + step]) == []
        assert decoder.receive_eof() == records


def test_a_body_over_the_limit_is_refused_and_released() -> None:
    decoder = WholeDecoder()
    read = b" " * (MAX_BODY_BYTES // 4)
    for _ in range(4):
        decoder.receive_data(read)
    with pytest.raises(BackendProtocolError, match=str(MAX_BODY_BYTES)):
        decoder.receive_data(b"x")
    assert repr(decoder) == "<WholeDecoder 0 bytes buffered>"
    with pytest.raises(BackendProtocolError):
        decoder.receive_data(b"")
    with pytest.raises(BackendProtocolError):
        decoder.receive_eof()
