"""Which lane may ask for how many jobs: a pure decision.

Every slot is free, taken by a running job, or promised to an open pull; the three
never add up to more than there are. A lane may always use the slots that are reserved
for it; the others are shared, the first lane of the configuration first.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

#: The most that a lane has asked for at a time: a burst is spread over the replicas,
#: and an idle lane does not sit on the slots that a busy one could use.
MAX_ASK = 16

#: A lane asks again when no more than so many are left of what it asked for: a pull for
#: every single job would cost the server and us more than the job's own message.
ASK_AGAIN = MAX_ASK // 2


class LaneLoad(msgspec.Struct):
    """One lane: its reserved slots, its running jobs, what its open pulls may bring.

    ``idle`` says that its last pull came back with nothing.
    """

    reserved: int = 0
    running: int = 0
    asked: int = 0
    idle: bool = False

    @property
    def used(self) -> int:
        """Slots that are taken or promised."""
        return self.running + self.asked


def asks(slots: int, lanes: Sequence[LaneLoad]) -> list[int]:
    """How many more jobs each lane should ask for now, in the order of ``lanes``."""
    wanted = [0] * len(lanes)
    if all(lane.asked > ASK_AGAIN for lane in lanes):
        return wanted  # as after most requests
    shared = slots - sum(max(lane.used, lane.reserved) for lane in lanes)
    for index, lane in enumerate(lanes):
        own = max(0, lane.reserved - lane.used)
        wanted[index] = min(own, _room(lane))
    # A lane that just came back empty-handed lets the others choose first; with as
    # many slots as lanes everybody has one in any case.
    order = sorted(range(len(lanes)), key=lambda index: (lanes[index].idle, index))
    for least in (1, MAX_ASK):
        for index in order:
            lane = lanes[index]
            have = lane.asked + wanted[index]
            more = min(shared, least - have, _room(lane) - wanted[index])
            if more > 0:
                wanted[index] += more
                shared -= more
    return wanted


def may_exceed(slots: int, lanes: Sequence[LaneLoad]) -> bool:
    """Whether one more job than there are slots may be asked for, now."""
    return sum(max(lane.used, lane.reserved) for lane in lanes) <= slots


def _room(lane: LaneLoad) -> int:
    return MAX_ASK - lane.asked if lane.asked <= ASK_AGAIN else 0
