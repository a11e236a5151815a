import Testing

@testable import RPCTransport

/// The small encodings: base64, percent-encoding, timeouts, metadata.
@Suite struct TextFormatTests {
    @Test(
        arguments: [
            ([], ""), ([0x66], "Zg"), ([0x66, 0x6F], "Zm8"), ([0x66, 0x6F, 0x6F], "Zm9v"), ([0xFB, 0xFF], "+/8"),
        ] as [([UInt8], String)])
    func base64(bytes: [UInt8], text: String) {
        #expect(Base64.encode(bytes) == Array(text.utf8))
        #expect(Base64.decode(text.utf8) == bytes)
        let padding = String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
        #expect(Base64.decode((text + padding).utf8) == bytes)
    }

    @Test(arguments: [
        ("", true), ("Zg", true), ("Zg==", true), ("Zg==,Zm8, Zm9v", true), (",", true), (" Zg ,Zm8=", true),
        ("A", false), ("Zg,A", false), ("Zg=", false), ("Z g", false), ("Zg==Zg", false), ("Zm9v,&", false),
        ("Zg== =", false),
    ])
    func base64Lists(text: String, isValid: Bool) {
        #expect(Array(text.utf8).withUnsafeBufferPointer { Base64.isValidList($0) } == isValid)
    }

    @Test(arguments: ["A", "AB=C", "A===", "Zg=", "Z-g", "Zm9v="]) func notBase64(text: String) {
        #expect(Base64.decode(text.utf8) == nil)
    }

    private static func decode(_ text: String) -> String {
        Array(text.utf8).withUnsafeBufferPointer { StatusMessage.decode($0) }
    }

    @Test func statusMessage() {
        #expect(StatusMessage.encode("a b%\n☺") == Array("a b%25%0A%E2%98%BA".utf8))
        #expect(Self.decode("a b%25%0A%e2%98%BA") == "a b%\n☺")
        #expect(Self.decode("50%") == "50%")
        #expect(Self.decode("%zz%4") == "%zz%4")
        #expect(Self.decode("%FF") == "\u{FFFD}")
        // Cut between characters, never within one.
        #expect(StatusMessage.encode("☺☺", limit: 10) == Array("%E2%98%BA".utf8))
    }

    private static func parse(_ text: String) -> Int64? {
        Array(text.utf8).withUnsafeBufferPointer { GRPCTimeout.parse($0) }
    }

    @Test(
        arguments: [
            ("1n", 1), ("0n", 0), ("2u", 2000), ("99999999m", 99_999_999_000_000), ("1S", 1_000_000_000),
            ("1M", 60_000_000_000), ("1H", 3_600_000_000_000), ("99999999H", GRPCTimeout.maximumNanoseconds),
        ] as [(String, Int64)])
    func timeout(text: String, nanoseconds: Int64) { #expect(Self.parse(text) == nanoseconds) }

    @Test(arguments: ["", "n", "1", "1s", "-1n", "+1n", "1.5S", " 1n", "123456789n", "1nn"])
    func malformedTimeout(text: String) { #expect(Self.parse(text) == nil) }

    @Test(arguments: [0, 1, 99_999_999, 100_000_000, 1_500_000_001, Int64.max] as [Int64])
    func timeoutNeverShrinks(nanoseconds: Int64) throws {
        let parsed = try #require(Self.parse(GRPCTimeout.encode(nanoseconds: nanoseconds)))
        #expect(parsed >= min(nanoseconds, GRPCTimeout.maximumNanoseconds))
    }

    @Test func metadata() {
        var metadata = Metadata()
        metadata.append("X-Mixed", "1")
        metadata.append("x-mixed", "2")
        metadata.append("x-bytes-bin", binary: [0, 255])
        metadata.append("x-ctl", "a\nb☺")
        for reserved in ["grpc-status", ":path", "te", "content-type", "", "bad name", "x-bin"] {
            metadata.append(reserved, "no")
        }
        metadata.append("grpc-retry-pushback-ms", "10")
        #expect(metadata.all("x-MIXED") == ["1", "2"])
        #expect(metadata.firstBinary("x-bytes-bin") == [0, 255])
        #expect(metadata.first("x-ctl")?.hasPrefix("a?b?") == true)
        let names = ["x-mixed", "x-mixed", "x-bytes-bin", "x-ctl", "grpc-retry-pushback-ms"]
        #expect(metadata.entries.map(\.name) == names)
        metadata.removeAll("x-mixed")
        #expect(metadata.first("x-mixed") == nil)
        #expect(!"\(metadata)".contains("10"))
    }

    /// A proxy may join values with commas; padded and unpadded ones are both understood.
    @Test func joinedBinaryMetadata() {
        var list = HeaderList()
        list.append("x-bin", "AQ==,Ag, Aw==".utf8)
        #expect(Metadata(list).allBinary("x-bin") == [[1], [2], [3]])
    }

    @Test(arguments: [
        (400, RPCCode.internal), (401, .unauthenticated), (403, .permissionDenied), (404, .unimplemented),
        (429, .unavailable), (503, .unavailable), (500, .unknown), (302, .unknown),
    ])
    func httpStatus(status: Int, code: RPCCode) { #expect(StatusMapping.code(forHTTPStatus: status) == code) }

    @Test(
        arguments: [
            (0, .internal), (2, .internal), (7, .unavailable), (8, .cancelled), (11, .resourceExhausted),
            (12, .permissionDenied),
        ] as [(UInt32, RPCCode)])
    func reset(errorCode: UInt32, code: RPCCode) { #expect(StatusMapping.code(forReset: errorCode) == code) }
}
