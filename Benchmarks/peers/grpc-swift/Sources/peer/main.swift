// grpc-swift 2: a unary echo on 127.0.0.1. usage: peer PORT
import GRPCCore
import GRPCNIOTransportHTTP2

/// Messages as they come, so that only the transport is measured.
struct Bytes: MessageSerializer, MessageDeserializer {
    func serialize<Message: GRPCContiguousBytes>(_ message: [UInt8]) throws -> Message { Message(message) }
    func deserialize<Message: GRPCContiguousBytes>(_ message: Message) throws -> [UInt8] {
        message.withUnsafeBytes { Array($0) }
    }
}

struct Echo: RegistrableRPCService {
    func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
        router.registerHandler(
            forMethod: MethodDescriptor(fullyQualifiedService: "bench.Bench", method: "Get"), deserializer: Bytes(),
            serializer: Bytes()
        ) { stream, _ in
            let request = try await ServerRequest(stream: stream)
            return StreamingServerResponse(single: ServerResponse(message: request.message))
        }
    }
}

guard CommandLine.arguments.count == 2, let port = Int(CommandLine.arguments[1]) else {
    fatalError("usage: peer PORT")
}
let server = GRPCServer(
    transport: .http2NIOPosix(address: .ipv4(host: "127.0.0.1", port: port), transportSecurity: .plaintext),
    services: [Echo()])
try await server.serve()
