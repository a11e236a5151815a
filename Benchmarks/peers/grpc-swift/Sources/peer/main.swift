// grpc-swift 2, on 127.0.0.1. usage: peer PORT [CERTIFICATE KEY]
import Glibc
import GRPCCore
import GRPCNIOTransportHTTP2

/// Messages as they come, so that only the transport is measured.
struct Bytes: MessageSerializer, MessageDeserializer {
    func serialize<Message: GRPCContiguousBytes>(_ message: [UInt8]) throws -> Message { Message(message) }
    func deserialize<Message: GRPCContiguousBytes>(_ message: Message) throws -> [UInt8] {
        message.withUnsafeBytes { Array($0) }
    }
}

struct Bench: RegistrableRPCService {
    func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
        for method in ["Get", "Echo"] {
            router.registerHandler(
                forMethod: MethodDescriptor(fullyQualifiedService: "bench.Bench", method: method),
                deserializer: Bytes(), serializer: Bytes()
            ) { stream, _ in
                let request = try await ServerRequest(stream: stream)
                return StreamingServerResponse(single: ServerResponse(message: request.message))
            }
        }
        router.registerHandler(
            forMethod: MethodDescriptor(fullyQualifiedService: "bench.Bench", method: "Stream"), deserializer: Bytes(),
            serializer: Bytes()
        ) { stream, _ in
            let request = try await ServerRequest(stream: stream)
            return StreamingServerResponse { writer in
                let count = Self.fixed32(request.message, at: 1), size = Self.fixed32(request.message, at: 6)
                let message = [UInt8](repeating: 0, count: size)
                for _ in 0..<count { try await writer.write(message) }
                return [:]
            }
        }
    }

    static func fixed32(_ bytes: [UInt8], at offset: Int) -> Int {
        bytes[offset..<(offset + 4)].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
}

let arguments = CommandLine.arguments
guard arguments.count == 2 || arguments.count == 4, let port = Int(arguments[1]) else {
    fatalError("usage: peer PORT [CERTIFICATE KEY]")
}
var security = HTTP2ServerTransport.Posix.TransportSecurity.plaintext
if arguments.count == 4 {
    security = .tls(
        certificateChain: [.file(path: arguments[2], format: .pem)],
        privateKey: .file(path: arguments[3], format: .pem))
}
let server = GRPCServer(
    transport: .http2NIOPosix(address: .ipv4(host: "127.0.0.1", port: port), transportSecurity: security),
    services: [Bench()])
Task.detached { [server] in
    do {
        try await server.serve()
    } catch {
        fatalError("\(error)")
    }
}
// Not an asynchronous main: valgrind 3.19 dies of the way in which that waits.
while true { pause() }
