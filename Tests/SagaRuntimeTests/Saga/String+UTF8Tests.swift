import Testing

@testable import SagaRuntime

@Suite struct StringUTF8Tests {
    static let texts: [[UInt8]] = [
        [], [0], [0x41], Array("später ☎️ 😀".utf8), [0xef, 0xbf, 0xbd], [0xff], [0xc3], [0xc0, 0x80],
        [0xed, 0xa0, 0x80], [0xf0, 0x9f, 0x98], [0xf4, 0x90, 0x80, 0x80], [0x41, 0x80, 0x42],
        Array(String(repeating: "a", count: 100).utf8) + [0xe2, 0x82],
    ]

    @Test(arguments: texts) func isWhatTheStandardLibrarySays(bytes: [UInt8]) {
        #expect(bytes.withUnsafeBytes { String(utf8: $0) } == String(validating: bytes, as: UTF8.self))
    }
}
