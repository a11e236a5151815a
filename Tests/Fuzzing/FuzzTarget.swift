/// Something that takes any bytes: it must not crash on them, and says what rule it saw broken.
///
/// A fuzzer drives it (`./dev fuzz`), and so does a short seeded run of `./dev test`.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// A whole connection, server's or client's: what the other side sends, and when handlers answer.
    case session
    /// Everything that turns bytes into values: messages, JSON, header values, what is stored.
    case message

    /// The rules that did not hold; empty if all did. The same bytes do the same, on the calling thread,
    /// but for what depends on the time that it takes.
    public func run(_ bytes: [UInt8]) -> [String] {
        var source = ByteSource(bytes)
        switch self {
        case .session: return SessionFuzz.run(source)
        case .message: return MessageFuzz.run(&source)
        }
    }

    /// Inputs beyond that are cut, by `./dev fuzz` too: more of the same teaches nothing.
    public static let maximumBytes = 4096
}
