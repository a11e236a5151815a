/// An encoding of messages, by its name in `grpc-encoding` (grpc/doc/compression.md). Each message is compressed by
/// itself: nothing of one shows in the size of another.
public enum RPCCompression: String, Sendable, Hashable, CaseIterable {
    case gzip
    /// In zlib's format (RFC 1950), as all of gRPC means by "deflate".
    case deflate

    /// What `grpc-accept-encoding` says of us.
    static let accepted: StaticString = "identity, deflate, gzip"

    /// A value of `grpc-encoding`; nil if it is neither of ours.
    init?(_ value: UnsafeBufferPointer<UInt8>) {
        if equal(value, "gzip") {
            self = .gzip
        } else if equal(value, "deflate") {
            self = .deflate
        } else {
            return nil
        }
    }

    /// The one to answer with to a peer that sent this `grpc-accept-encoding`, a list between commas and spaces.
    static func preferred(in list: UnsafeBufferPointer<UInt8>) -> RPCCompression? {
        var preferred: RPCCompression?
        var start = 0
        for end in 0...list.count where end == list.count || list[end] == UInt8(ascii: ",") {
            var entry = list[start..<end]
            while let first = entry.first, Self.isSpace(first) { entry = entry.dropFirst() }
            while let last = entry.last, Self.isSpace(last) { entry = entry.dropLast() }
            switch RPCCompression(UnsafeBufferPointer(rebasing: entry)) {
            case .gzip: return .gzip
            case .deflate: preferred = .deflate
            case nil: break
            }
            start = end + 1
        }
        return preferred
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
}

/// Whether one message is compressed.
public enum MessageCompression: Sendable, Hashable {
    /// On the server as its configuration says; on the client as the call's options say.
    case automatic
    /// Compressed if the other side understands any of our encodings.
    case always
    /// As it is: for a message that holds a secret next to something that the other side chose (BREACH), or that
    /// compressing would not make smaller.
    case never
}
