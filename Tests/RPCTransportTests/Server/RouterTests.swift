import Glibc
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

    /// Halves of flags belong together by twos from the first one on: whoever goes back over them as characters counts
    /// them anew at each. It takes 20 ms for these 4,000 of them, on the event loop, and a client that repeats its header
    /// sends a few bytes for that.
    @Test func explainingTakesNoLongerForOddCharacters() {
        let odd = Array(("/" + String(repeating: "\u{1F1E9}", count: 4000)).utf8)
        let plain = Array(("/" + String(repeating: "s", count: 16_000)).utf8)
        let clock = { () -> Int in
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return time.tv_sec * 1_000_000_000 + time.tv_nsec
        }
        let time = { (path: [UInt8]) -> Int in
            let begin = clock()
            for _ in 0..<100 {
                let error = path.withUnsafeBufferPointer { Self.router.explainUnknown($0) }
                #expect(error == RPCError(.unimplemented, "malformed method name"))
            }
            return clock() - begin
        }
        // The best of some: other tests and a sanitizer make all of it slower.
        let (oddTime, plainTime) = ((0..<3).map { _ in time(odd) }.min(), (0..<3).map { _ in time(plain) }.min())
        #expect((oddTime ?? .max) < 5 * (plainTime ?? 0))
    }

    /// No more of a client's name than says which it is.
    @Test func explainsLongNames() {
        let path = Array(("/" + String(repeating: "s", count: 1000) + "/Get").utf8)
        let error = path.withUnsafeBufferPointer { Self.router.explainUnknown($0) }
        #expect(error == RPCError(.unimplemented, "unknown service " + String(repeating: "s", count: 128)))
    }
}
