"""The main job of batch creators by Python's clients, as programs that can be killed: CLIENT ADDRESS device_batch COUNT.

DEVICE_BATCH is the batch. Of its requests number n is without name if n % 9 is 3, without request id if it is 6, refused by
its provider if it is 0; each has one result, and the client fails unless it is the right one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import grpclib.client

from support.client import DeviceClient
from support.stubs import service_grpclib
from test_batches import check_mixed, create_all, mixed


async def create_by_grpclib(address: str, requests: list[Any]) -> dict[int, Any]:
    host, _, port = address.rpartition(":")
    channel = grpclib.client.Channel(host, int(port))
    results: dict[int, Any] = {}
    try:
        async with service_grpclib.DeviceServiceStub(channel).CreateDevices.open() as stream:

            async def send() -> None:
                for request in requests:
                    await stream.send_message(request)
                await stream.end()

            await stream.send_request()
            sending = asyncio.ensure_future(send())
            async for result in stream:
                assert result.index not in results, "a request has two results"
                results[result.index] = result
            await sending
    finally:
        channel.close()
    return results


def main() -> None:
    client, address, _, count = sys.argv[1:]
    requests = mixed(int(count), os.environ["DEVICE_BATCH"])
    if client == "grpclib":
        results = asyncio.run(create_by_grpclib(address, requests))
    else:
        results = create_all(DeviceClient(address), requests, 300)
    check_mixed(requests, results)


if __name__ == "__main__":
    main()
