"""DBOS Transact: five durable steps a workflow. usage: five_steps.py WORKFLOWS IN_FLIGHT, with DBOS_URL set.

Prints one line of JSON: workflows per second and latencies in milliseconds.
"""

import asyncio
import json
import os
import sys
import time

from dbos import DBOS

WORKFLOWS, IN_FLIGHT = int(sys.argv[1]), int(sys.argv[2])
STEPS = (
    "ALLOCATE_PORTS", "CREATE_PROVIDER_DEVICE", "CREATE_DATABASE_RECORD", "REPORT_QUOTA_USAGE", "START_DEVICE",
)

DBOS(
    config={
        "name": "bench",
        "system_database_url": os.environ["DBOS_URL"],
        "log_level": "ERROR",
        "run_admin_server": False,
        "sys_db_pool_size": 20,
    }
)


@DBOS.step()
async def step(number: int, name: str) -> dict:
    return {"step": name, "i": number}


@DBOS.workflow()
async def workflow(number: int) -> int:
    for name in STEPS:
        await step(number, name)
    return number


async def main() -> None:
    DBOS.launch()
    permits = asyncio.Semaphore(IN_FLIGHT)
    latencies: list[float] = []

    async def one(number: int) -> None:
        async with permits:
            started = time.perf_counter()
            handle = await DBOS.start_workflow_async(workflow, number)
            await handle.get_result()
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*[one(number) for number in range(min(50, WORKFLOWS))])  # Warm.
    latencies.clear()
    started = time.perf_counter()
    await asyncio.gather(*[one(number) for number in range(WORKFLOWS)])
    elapsed = time.perf_counter() - started
    latencies.sort()
    print(json.dumps({
        "workflows_per_second": WORKFLOWS / elapsed,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
    }))
    DBOS.destroy()


asyncio.run(main())
