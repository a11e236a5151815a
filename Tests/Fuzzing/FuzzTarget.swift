import Glibc

/// Something that takes any bytes: it must not crash on them, and says what rule it saw broken.
///
/// A fuzzer drives it (`./dev fuzz`), and so does a short seeded run of `./dev test`.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// A whole connection, server's or client's: what the other side sends, and when handlers answer.
    case session
    /// Everything that turns bytes into values: messages, JSON, header values, what is stored.
    case message

    /// The rules that did not hold; empty if all did. The same bytes always do the same, on the calling thread.
    public func run(_ bytes: [UInt8]) -> [String] {
        var source = ByteSource(bytes)
        switch self {
        case .session:
            let broken = SerialTasks.with { tasks in
                source.byte() & 1 == 0 ? ServerFuzz.run(source, tasks) : ClientFuzz.run(source, tasks)
            }
            return broken
        case .message:
            return MessageFuzz.run(&source)
        }
    }

    /// Inputs beyond that are cut: more of the same teaches nothing.
    public var maximumBytes: Int {
        switch self {
        case .session: 4096
        case .message: 8192
        }
    }
}
