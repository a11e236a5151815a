"""A user service that loses answers, answers with a proxy's errors, and does things late; all by the seed."""

from __future__ import annotations

import random

from support import ledger
from support.ledger import Action, Call, Ledger

# What may become of a request, and how often. After so many lies to one device there are no more, so that sagas end.
_LIES: tuple[tuple[int, Action], ...] = (
    (70, Action()),
    (5, ledger.fail(503)),
    (4, ledger.lose_reply()),
    (4, ledger.drop()),
    (4, ledger.late(1.5)),
    (3, ledger.hang(7)),                              # longer than the replicas wait
    (3, Action(status=504, body={"message": "gateway time-out"})),  # counted all the same
    (2, Action(status=408, body={"message": "request time-out"})),
    (2, Action(status=408, applies=False, body={"message": "request time-out"})),
    (2, ledger.throttle("1")),
    (1, Action(status=401, applies=False, body={"message": "token expired"})),
)
_MOST_LIES = 4
_MAY_BE_LOST = {408, 502, 503, 504}


class UserService(Ledger):
    """With `is_idempotent`, keys are honoured as `support.ledger` says; without, each request counts."""

    def __init__(self, seed: int, is_idempotent: bool) -> None:
        self._seed = seed
        self.is_honest = False
        self.is_away = False
        self._asked: dict[tuple[str, str], int] = {}
        # Devices about which an answer was lost: nobody but this service can know whether it counted.
        self.in_doubt: set[str] = set()
        super().__init__(honours_keys=is_idempotent)

    def arrived(self, call: Call) -> Action:
        super().arrived(call)
        with self._lock:
            number = self._asked[call.device, call.operation] = self._asked.get((call.device, call.operation), 0) + 1
        if self.is_away:
            action = ledger.drop()
        elif self.is_honest or number > _MOST_LIES:
            action = Action()
        else:
            draw = random.Random(f"{self._seed} {call.user} {call.operation} {number}")
            action = draw.choices([lie for _, lie in _LIES], [often for often, _ in _LIES])[0]
        if not action.answers or action.delay or action.status in _MAY_BE_LOST:
            self.in_doubt.add(call.device)
        return action
