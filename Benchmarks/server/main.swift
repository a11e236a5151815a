// RPCTransport's side of `./dev bench rpc`: the same methods as its peers, messages as they come.
// usage: BenchServer PORT [CERTIFICATE KEY]
import Glibc
import Logging
import NIOCore
import RPCTransport

/// Replies of `Stream`: as many as the request says, of the size that it says (fixed32 fields 1 and 2).
func streamed(_ request: ByteBuffer) throws(RPCError) -> (count: UInt32, message: ByteBuffer) {
    guard let count = request.getInteger(at: request.readerIndex + 1, endianness: .little, as: UInt32.self),
        let size = request.getInteger(at: request.readerIndex + 6, endianness: .little, as: UInt32.self)
    else { throw RPCError(.invalidArgument, "count and size are missing") }
    return (count, ByteBuffer(repeating: 0, count: Int(size)))
}

let service = RPCService(
    name: "bench.Bench",
    methods: [
        .unaryAtOnce("Echo") { message, _ in RPCReply(message: message) },
        .unary("EchoInTask") { message, _ in RPCReply(message: message) },
        .serverStreaming("Stream") { request, _, writer in
            let (count, message) = try streamed(request)
            for _ in 0..<count { try await writer.write(message) }
        },
    ])

let arguments = CommandLine.arguments
guard arguments.count == 2 || arguments.count == 4, let port = Int(arguments[1]) else {
    fatalError("usage: BenchServer PORT [CERTIFICATE KEY]")
}
var configuration = RPCServerConfiguration(port: port)
// For large messages, and still the smallest of the four.
configuration.streamWindowBytes = 256 * 1024
if arguments.count == 4 { configuration.tls = RPCServerTLS(certificateFile: arguments[2], keyFile: arguments[3]) }
let server = RPCServer(configuration: configuration, services: [service])
Task.detached { [server] in
    do {
        try await server.run()
    } catch {
        fatalError("\(error)")
    }
}
// Not an asynchronous main: valgrind 3.19 dies of the way in which that waits.
while true { pause() }
