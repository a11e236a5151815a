"""Tells a saga's state from its events, as the contract says that one can."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from .client import DELETION_STEPS, RESTART_STEPS, START_STEPS, STEPS, STOP_STEPS, event_name, status_name, step_statuses

_STEP_STATUS_AFTER = {
    "STEP_STARTED": "RUNNING",
    "STEP_RETRYING": None,  # stays as it is: RUNNING forward, COMPENSATING in the undo
    "STEP_PROGRESS": None,
    "STEP_SUCCEEDED": "SUCCEEDED",
    "STEP_FAILED": "FAILED",
    "STEP_SKIPPED": "SKIPPED",
    "STEP_COMPENSATING": "COMPENSATING",
    "STEP_COMPENSATED": "COMPENSATED",
    "STEP_COMPENSATION_FAILED": "COMPENSATION_FAILED",
}
_PLANS = (STEPS, DELETION_STEPS, START_STEPS, STOP_STEPS, RESTART_STEPS)
_SAGA_STATUS_AFTER = {
    "SAGA_STARTED": "RUNNING",
    "SAGA_COMPENSATING": "COMPENSATING",
    "SAGA_COMPLETED": "COMPLETED",
    "SAGA_COMPENSATED": "COMPENSATED",
    "SAGA_PARKED": "PARKED",
}


@dataclasses.dataclass
class Replayed:
    status: str
    steps: dict[str, str]
    last_sequence: int
    adoptions: int


def _plan(events: Sequence[Any]) -> Sequence[str]:
    """The plan of the saga that these are of: it is told by its steps and their number."""
    begun = {event.step for event in events if event.step}
    plans = [plan for plan in _PLANS if begun <= set(plan)]
    return next(plan for plan in plans if len(plan) == events[0].steps_total)


def replay(events: Sequence[Any], plan: Sequence[str] | None = None) -> Replayed:
    """Checks that the events are whole and in order, and folds them."""
    plan = plan or _plan(events)
    state = Replayed("", {step: "PENDING" for step in plan}, 0, 0)
    done: set[str] = set()  # succeeded or skipped, and not undone
    is_turned_back = False
    for event in events:
        name = event_name(event)
        where = f"event {event.sequence} {name} {event.step}"
        assert event.sequence == state.last_sequence + 1, f"{where} follows {state.last_sequence}"
        state.last_sequence = event.sequence
        if name.startswith("STEP_"):
            assert name in _STEP_STATUS_AFTER, f"{where}: unknown"
            assert event.step in state.steps, f"{where}: unknown step"
            assert event.step_index == plan.index(event.step), where
            status = _STEP_STATUS_AFTER[name]
            if status is not None:
                state.steps[event.step] = status
            if status == "SUCCEEDED" or status == "SKIPPED" and not is_turned_back:
                done.add(event.step)
            elif status in ("COMPENSATED", "FAILED", "SKIPPED"):
                done.discard(event.step)
        elif name == "SAGA_ADOPTED":
            state.adoptions += 1
        elif name == "SAGA_RESUMED":
            assert state.status == "PARKED", where
            state.status = "COMPENSATING" if is_turned_back else "RUNNING"
        elif name == "COMMAND_RECEIVED":
            pass
        else:
            assert name in _SAGA_STATUS_AFTER, f"{where}: unknown"
            state.status = _SAGA_STATUS_AFTER[name]
            is_turned_back = is_turned_back or state.status == "COMPENSATING"
        shown = status_name_of(event)
        assert shown == state.status, f"{where} says {shown}, the events say {state.status}"
        assert event.steps_total == len(plan), where
        assert event.steps_done == len(done), f"{where} says {event.steps_done} steps done, the events say {done}"
    return state


def status_name_of(event: Any) -> str:
    from .stubs import saga_pb2

    return str(saga_pb2.SagaStatus.Name(event.saga_status)).removeprefix("SAGA_STATUS_")


def check_against_saga(events: Sequence[Any], saga: Any) -> None:
    """The state told from the events is the one that GetSaga shows."""
    plan = next((plan for plan in _PLANS if list(plan) == [step.name for step in saga.steps]), None)
    assert plan, f"{saga.saga_id}: unknown steps {saga.steps}"
    told = replay(events, plan)
    assert told.status == status_name(saga), f"{saga.saga_id}: events {told.status}, GetSaga {status_name(saga)}"
    assert told.last_sequence == saga.last_sequence, f"{saga.saga_id}: {told.last_sequence} != {saga.last_sequence}"
    assert told.steps == step_statuses(saga), f"{saga.saga_id}: {told.steps} != {step_statuses(saga)}"


def sequences(events: Iterable[Any]) -> list[int]:
    return [event.sequence for event in events]
