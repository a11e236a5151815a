import InteropMessages
import NIOCore
import RPCTransport

enum UnaryCases {
    static let requestSize = 271_828
    static let responseSize: Int32 = 314_159

    static func large(_ service: TestServiceClient) async throws {
        var request = SimpleRequest()
        request.responseSize = Self.responseSize
        request.payload = Payload(zeros: Self.requestSize)
        try Self.check(try await service.unaryCall(request).0)
    }

    static func check(_ response: SimpleResponse) throws {
        try expectEqual(response.payload?.body.count, Int(Self.responseSize), "bytes of the response's payload")
        try expect(response.payload?.body.allSatisfy { $0 == 0 } == true, "the payload is not all zeros")
    }

    static func unimplemented(_ service: TestServiceClient, _ path: String) async throws {
        let error = try await service.status { _ = try await service.client.unary(path, ByteBuffer()) }
        try expectEqual(error.code, .unimplemented, "the status")
    }
}
