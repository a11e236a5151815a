"""grpcio, asyncio: a unary echo on 127.0.0.1. usage: server.py PORT"""

import asyncio
import sys

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != "/bench.Bench/Get":
            return None

        async def get(request, context):
            return request

        return grpc.unary_unary_rpc_method_handler(get)


async def main() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
