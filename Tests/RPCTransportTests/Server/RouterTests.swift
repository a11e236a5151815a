import NIOCore
import Testing

@testable import RPCTransport

@Suite struct RouterTests {
    private static let router = Router(
        services: (0..<40).map { number in
            RPCService(
                name: "pkg.Service\(number)",
                methods: ["Get", "List"].map { name in
                    .unary(name) { message, _ in RPCReply(message: message) }
                })
        })

    private static func find(_ path: String) -> String? {
        Array(path.utf8).withUnsafeBufferPointer { Self.router.route($0)?.path }
    }

    @Test func findsEveryMethod() {
        for number in 0..<40 { #expect(Self.find("/pkg.Service\(number)/List") == "/pkg.Service\(number)/List") }
    }

    /// One spelling only: others must not reach a method (CVE-2026-33186).
    @Test(arguments: [
        "", "/", "pkg.Service1/Get", "/pkg.Service1/get", "/pkg.Service1/Get/", "//pkg.Service1/Get",
        "/pkg.Service1/Get?x", "/pkg.Service1", "/pkg.Service99/Get",
    ])
    func otherSpellings(path: String) { #expect(Self.find(path) == nil) }

    @Test(arguments: [
        ("/pkg.Service1/Nope", "unknown method Nope for service pkg.Service1"),
        ("/pkg.Nope/Get", "unknown service pkg.Nope"), ("pkg.Service1/Get", "malformed method name"),
        ("/x", "malformed method name"),
    ])
    func explains(path: String, text: String) {
        let error = Array(path.utf8).withUnsafeBufferPointer { Self.router.explainUnknown($0) }
        #expect(error == RPCError(.unimplemented, text))
    }
}
