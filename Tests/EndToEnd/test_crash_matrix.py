"""3. SIGKILL before and after every flush and around and during every remote call, forward and backward; then a restart.

The list of points comes from the binary (`devicerpc fault-points`, test builds only). Each point is a test of its own,
which fails if the point was never hit. The points run a few at once: most of their time goes by waiting.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from support.client import DELETION_STEPS
from support.postgres import Cluster
from support.scenario import BACKWARD, FORWARD, PARKING, Controls, Deletions, Part, Scenario
from support.server import binary, run_command
from support.waiting import wait_until
from support.world import World

# One worker runs the whole file: it has its own way of running several at once.
pytestmark = pytest.mark.xdist_group("crash matrix")

# How many points run at once.
WORKERS = 3


def _points() -> list[str]:
    """The binary's list. Without one there is a single test that says so."""
    try:
        binary()
    except AssertionError:
        return []
    done = run_command(["fault-points"])
    return [line for line in done.stdout.split() if "." in line] if done.returncode == 0 else []


def _directions(point: str) -> list[str]:
    """In which scenarios the point must be hit."""
    _, what, *_ = point.split(".")
    if what == "STOP_DEVICE":
        return ["controlling"]
    if what in DELETION_STEPS:
        return ["deleting"]
    if point.startswith("call.START_DEVICE.execute"):
        return ["forward", "controlling"]
    if what == "park":
        return ["parking"]
    if ".compensate." in point or what == "undo":
        return ["backward"]
    if point.startswith("call.") or what in ("create", "retry"):
        return ["forward"]
    if what in ("forward", "end"):
        return ["forward", "backward", "deleting", "controlling"]
    return ["forward", "backward"]


def _cases() -> list[tuple[str, str]]:
    return [(point, direction) for point in _points() for direction in _directions(point)]


_PARTS: dict[str, tuple[Part, ...]] = {"forward": FORWARD, "backward": BACKWARD, "parking": PARKING}


def crash(world: World, point: str, direction: str) -> None:
    """One cell of the matrix."""
    log = world.home / "faults.log"
    scenario: Scenario | Deletions | Controls
    if direction in ("deleting", "controlling"):
        scenario = Deletions(world) if direction == "deleting" else Controls(world)
        maker = world.server()
        scenario.prepare(maker.client())
        maker.terminate()
        assert maker.wait_ended(30) == 0
    else:
        scenario = Scenario(world, _PARTS[direction])
    environment = {"USER_SERVICE_IDEMPOTENT": "false" if direction == "parking" else "true"}
    if point.endswith(".during"):
        # A call under way is one that has been for 20 ms.
        assert world.ledger
        world.ledger.delay = 0.06
        environment |= {"DEVICERPC_SIMULATED_LATENCY": "60ms", "DEVICERPC_SIMULATED_BOOT": "60ms"}
    server = world.server(start=False, environment=environment)
    is_of_adoption = point.startswith(("claim.", "flush.adopt."))
    if is_of_adoption:
        # Hit by who takes over: a first process leaves its sagas behind.
        server.start()
        calls = scenario.start(server.client())
        wait_until(lambda: world.count("COMPLETED") + world.count("COMPENSATING") > 0, 60, "sagas under way")
        server.kill()
    server.launch({"DEVICERPC_FAULT": point, "DEVICERPC_FAULT_LOG": str(log)})
    if not is_of_adoption:
        server.wait_ready()
        calls = scenario.start(server.client())

    # Every call ends only with its saga, or with the server.
    deadline = time.monotonic() + 150
    while server.is_running:
        if all(call.is_done for call in calls) and world.moving() == 0:
            wait_until(
                lambda: not server.is_running, 10, f"{point} to be hit ({direction}): all {len(calls)} sagas came to their ends"
            )
            break
        assert time.monotonic() < deadline, f"{point} was not hit ({direction}) in 150 s"
        time.sleep(0.02)
    assert server.returncode == -signal.SIGKILL, f"it ended with {server.returncode}\n{server.log_tail()}"
    # More than once where two threads were there at the same instant.
    assert set(log.read_text().split()) == {point}
    for call in calls:
        call.outcome()

    server.start()
    survivor = server.client()
    scenario.finish(survivor)
    world.wait_all_over()
    findings = world.audit(survivor)
    if isinstance(scenario, Scenario):  # of two deletions of one device the second may come when it is gone
        assert len(findings.sagas) == scenario.size, "a saga too many, or one too few"


@pytest.fixture(scope="module")
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        yield pool


@pytest.fixture(scope="module")
def matrix(
    request: pytest.FixtureRequest, cluster: Cluster, template: str, pool: concurrent.futures.ThreadPoolExecutor
) -> Iterator[dict[tuple[str, str], concurrent.futures.Future[None]]]:
    """The cells that this run selected, under way."""
    selected = [
        (str(item.callspec.params["point"]), str(item.callspec.params["direction"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_crash_at" and hasattr(item, "callspec")
    ]

    def run(point: str, direction: str) -> None:
        world = World(cluster, template)
        try:
            crash(world, point, direction)
            assert world.ledger
            assert not world.ledger.bad_requests
        except BaseException as error:
            error.add_note(world.log_tails())
            raise
        finally:
            world.close()

    futures = {cell: pool.submit(run, *cell) for cell in selected}
    try:
        yield futures
    finally:
        for future in futures.values():
            future.cancel()


def test_the_binary_lists_its_points() -> None:
    points = _points()
    assert len(points) > 20, f"devicerpc fault-points gave {points}: is it a test build?"
    assert len(set(points)) == len(points)
    kinds = {point.rpartition(".")[2] for point in points}
    assert {"before", "during", "after"} <= kinds


@pytest.mark.parametrize(("point", "direction"), _cases())
def test_crash_at(
    matrix: dict[tuple[str, str], concurrent.futures.Future[None]], point: str, direction: str
) -> None:
    matrix[point, direction].result(timeout=550)


def test_crash_upon_crash(world: World) -> None:
    """Crashes at random points, also while the traces of the last crash are being cleared away."""
    seed = int(os.environ.get("DEVICERPC_TEST_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"DEVICERPC_TEST_SEED={seed}")
    dice = random.Random(seed)
    points = [point for point in _points() if not point.startswith("flush.adopt")]
    scenario = Scenario(world, FORWARD + BACKWARD, copies=2)
    server = world.server(start=False)
    crashes = 0
    # Fewer in a row than make a saga poison: from 4 adoptions without progress on it would be parked.
    # The first is one that every run comes by, so that something is shown whatever the dice say.
    for fault in ["flush.create.after:1"] + [f"{dice.choice(points)}:{dice.randint(1, 3)}" for _ in range(2)]:
        server.launch({"DEVICERPC_FAULT": fault})
        try:
            server.wait_ready()
        except AssertionError:
            assert server.returncode == -signal.SIGKILL, server.log_tail()
            crashes += 1
            continue
        calls = scenario.start(server.client())
        try:
            wait_until(lambda: not server.is_running, 4, "a crash")
            crashes += 1
        except AssertionError:
            server.kill()
        for call in calls:
            call.outcome()
    server.start()
    client = server.client()
    scenario.finish(client)
    world.wait_all_over()
    findings = world.audit(client)
    assert len(findings.sagas) == scenario.size
    assert crashes > 0, "no point was hit: nothing was shown"
