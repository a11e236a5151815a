/// What happened in a run, one line a fact, in order. The same seed writes the same bytes.
///
/// Unchecked: of one thread.
final class History: @unchecked Sendable {
    private(set) var lines: [String] = []
    /// Over everything, also over what is too dull for a line (a sweep that found nothing).
    private(set) var digest: UInt64 = 0xcbf2_9ce4_8422_2325
    private let prints: Bool
    /// Sagas by their ids, as people call them: `S3` is the one that client 3 wanted first, `S3b` its second try.
    private var names: [String: String] = [:]

    init(prints: Bool) { self.prints = prints }

    func note(_ who: String, _ what: String, isDull: Bool = false) {
        let line = "\(Self.clock(Scheduler.shared.now)) \(Self.padded(who, 8)) \(what)"
        self.digest = Self.digest(line, after: self.digest)
        if isDull { return }
        let readable = self.readable(line)
        self.lines.append(readable)
        if self.prints { print(readable) }
    }

    private static func digest(_ line: String, after digest: UInt64) -> UInt64 {
        var (line, digest) = (line, digest)
        line.withUTF8 { bytes in
            guard var next = bytes.baseAddress else { return }
            let end = next + bytes.count
            while next < end {
                digest = (digest ^ UInt64(next.pointee)) &* 0x0000_0100_0000_01b3
                next += 1
            }
        }
        return digest
    }

    func name(_ sagaID: String, _ client: Int, attempt: Int) {
        let letter = attempt == 0 ? "" : String(Character(Unicode.Scalar(UInt8(97 + attempt % 26))))
        self.names[sagaID] = "S\(client)\(letter)"
    }

    /// With names instead of ids: `saga_`, 13 digits, `_`, and ten more.
    func readable(_ line: String) -> String {
        let bytes = Array(line.utf8)
        let (prefix, length) = (Array("saga_1".utf8), 29)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == prefix[0], index + length <= bytes.count,
                bytes[index..<(index + prefix.count)].elementsEqual(prefix),
                let name = self.names[String(decoding: bytes[index..<(index + length)], as: UTF8.self)]
            {
                result += name.utf8
                index += length
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    var digestText: String { String(self.digest, radix: 16) }

    /// Seconds with six decimals.
    private static func clock(_ nanoseconds: Int64) -> String {
        let micros = nanoseconds / 1000
        let decimals = String(micros % 1_000_000)
        let seconds = String(micros / 1_000_000)
        return String(repeating: " ", count: max(0, 4 - seconds.utf8.count)) + seconds + "."
            + String(repeating: "0", count: 6 - decimals.utf8.count) + decimals
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.utf8.count))
    }
}
