"""An answer's tool calls, put together from what servers send of them.

OpenAI API reference, "The chat completion chunk object", ``delta.tool_calls``. Servers
differ in all of it: the index may be missing, the same for every call, or no number;
the id may be missing or come with every piece; the name may come in pieces, or whole
with every piece. So a call is found by its id, else by its index, else it is the one
that was begun last.
"""

from __future__ import annotations

import json
from typing import Any

from bridge.decoders.documents import Nesting
from bridge.dialects import ToolCallPart

#: Where servers put the arguments of a call, its own fields in this order.
_ARGUMENTS = ("arguments", "input", "parameters")
_KNOWN = frozenset({"id", "call_id", "index", "name", "type", *_ARGUMENTS})


class _Call:
    __slots__ = (
        "begun",
        "has_arguments",
        "id",
        "index",
        "name",
        "nesting",
        "number",
    )

    def __init__(self, number: int, id: str | None) -> None:
        self.number = number
        self.id = id
        #: The backend's own number of it, if it has one.
        self.index: int | None = None
        self.name = ""
        #: The brackets of its arguments, which tell whether they are whole.
        self.nesting = Nesting()
        self.has_arguments = False
        #: Whether its first piece was given.
        self.begun = False

    @property
    def complete(self) -> bool:
        """Whether its arguments are a whole document."""
        return self.has_arguments and self.nesting.closed


class ToolCalls:
    """Numbers the calls of one answer, and gives their pieces in the contract's form.

    A call's first piece is held back until its arguments begin: only then is its name
    known to be whole. `flush` gives what is held back when another call begins, and at
    the answer's end.
    """

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}

    def __repr__(self) -> str:
        return f"<ToolCalls {len(self._calls)}>"

    @property
    def begun(self) -> bool:
        """Whether there is a call at all."""
        return bool(self._calls)

    def knows(self, id: Any) -> bool:
        """Whether a call of this id was begun."""
        return isinstance(id, str) and id in self._by_id

    def receive(self, piece: dict[str, Any], position: int) -> list[ToolCallPart]:
        """Take one element of ``tool_calls``, which is at ``position`` there.

        Raises `ValueError` for arguments that cannot be encoded.
        """
        function = _function_of(piece)
        id = _text_of(piece.get("id") or piece.get("call_id"))
        name = _text_of(function.get("name") or piece.get("name"))
        arguments = _arguments_of(function) or _arguments_of(piece)
        if not (id or name or arguments):
            return []
        index = _index_of(piece.get("index"))
        call = self._find(index, id, name, arguments, position)
        parts: list[ToolCallPart] = []
        if call is None:
            parts += self.flush()
            call = _Call(len(self._calls), id or None)
            self._calls.append(call)
        if id:
            call.id = call.id or id
            self._by_id[id] = call
        if index is not None:
            call.index = index
            self._by_index[index] = call
        if name and not call.begun:
            repeats = name.startswith(call.name)
            call.name = name if repeats else call.name + name
        if arguments:
            call.has_arguments = True
            call.nesting.feed(arguments.encode("utf-8", "replace"))
            parts.append(_piece(call, arguments))
        return parts

    def flush(self) -> list[ToolCallPart]:
        """Give the first piece of a call whose arguments have not begun."""
        return [_piece(call, None) for call in self._calls[-1:] if not call.begun]

    def _find(
        self, index: int | None, id: str, name: str, arguments: str, position: int
    ) -> _Call | None:
        """The call that a piece belongs to; ``None`` where it begins one."""
        if id and id in self._by_id:
            known = self._by_id[id]
            return None if name and _shares_id(known, index, name) else known
        last = self._calls[-1] if self._calls else None
        call = self._by_index.get(index) if index is not None else last
        if call is None:
            # An index of its own begins a call if there is anything to begin it with.
            return None if id or name else last
        if id:
            return call if position == 0 and _lacks_id(call, name) else None
        if not name:
            return call
        if index is None and position > 0:
            return None  # whole calls beside each other, with nothing to number them
        return None if _is_another(call, name, arguments) else call


def _lacks_id(call: _Call, name: str) -> bool:
    """Whether a new id is that of a call which began without one."""
    if call.id is not None:
        return False
    if not call.begun:
        return not name or name == call.name
    return not name and not call.complete


def _shares_id(call: _Call, index: int | None, name: str) -> bool:
    """Whether a piece with a name is of another call, under the id of this one."""
    if index is not None and call.index is not None and index != call.index:
        return True
    return name != call.name and call.complete


def _is_another(call: _Call, name: str, arguments: str) -> bool:
    """Whether a piece with a name, but no id, is the next call instead of a tail."""
    if not call.complete:
        return False
    return name != call.name or arguments.lstrip().startswith("{")


def _piece(call: _Call, arguments: str | None) -> ToolCallPart:
    if call.begun:
        return ToolCallPart(call.number, arguments=arguments)
    call.begun = True
    return ToolCallPart(call.number, call.id, call.name or None, arguments)


def calls_in(value: Any) -> list[dict[str, Any]]:
    """The calls in what should be an array of them, and may be one, or a table.

    What is none is one of unknown fields.
    """
    if isinstance(value, dict):
        is_call = {"function", "custom", "name", "id", *_ARGUMENTS} & value.keys()
        value = [value] if is_call else list(value.values())
    elif not isinstance(value, list):
        value = [value]
    return [call if isinstance(call, dict) else {"": call} for call in value if call]


def unknown_fields(call: dict[str, Any]) -> list[tuple[str, Any]]:
    """The fields of a call that are not read."""
    function = _function_of(call)
    fields = [*call.items(), *(function.items() if function is not call else ())]
    known = _KNOWN if function is call else _KNOWN | {"function", "custom"}
    return [(name, value) for name, value in fields if name not in known]


def _function_of(piece: dict[str, Any]) -> dict[str, Any]:
    for key in ("function", "custom"):
        function = piece.get(key)
        if isinstance(function, dict):
            return function
    return piece


def _arguments_of(function: dict[str, Any]) -> str:
    for key in _ARGUMENTS:
        value = function.get(key)
        if value is not None and value != "":
            return value if isinstance(value, str) else _encode(value)
    return ""


def _encode(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise ValueError("the arguments are nested too deep") from error


def _text_of(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def _index_of(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:18])
    return value if type(value) is int else None
