"""grpcio, asyncio, on 127.0.0.1. usage: server.py PORT [CERTIFICATE KEY]"""

import asyncio
import pathlib
import struct
import sys

import grpc


async def echo(request, context):
    return request


async def stream(request, context):
    count, size = struct.unpack("<xIxI", request)
    message = bytes(size)
    for _ in range(count):
        await context.write(message)


HANDLERS = {
    "/bench.Bench/Get": grpc.unary_unary_rpc_method_handler(echo),
    "/bench.Bench/Echo": grpc.unary_unary_rpc_method_handler(echo),
    "/bench.Bench/Stream": grpc.unary_stream_rpc_method_handler(stream),
}


class Bench(grpc.GenericRpcHandler):
    def service(self, details):
        return HANDLERS.get(details.method)


async def main() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Bench(),))
    address = f"127.0.0.1:{sys.argv[1]}"
    if len(sys.argv) == 4:
        certificate, key = (pathlib.Path(name).read_bytes() for name in sys.argv[2:])
        server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
    else:
        server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
