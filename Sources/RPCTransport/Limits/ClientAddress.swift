import Glibc
import NIOCore

/// Whom a connection counts for: its IPv4 address, or the network of its IPv6 address, since whoever has one address of a
/// /64 has all of them.
public struct ClientAddress: Hashable, Sendable {
    private enum Kind: Hashable {
        case ipv4(UInt32)
        /// The upper half of the address.
        case ipv6(UInt64)
        case other
    }

    /// There is no address: a Unix socket, or no connection at all.
    public static let none = ClientAddress(nil)

    private let kind: Kind

    init(_ address: SocketAddress?) {
        self.kind = address?.withSockAddr { Self.kind(UnsafeRawBufferPointer(start: $0, count: $1)) } ?? .other
    }

    /// - Parameter bytes: a `sockaddr`, which begins with its `sa_family`.
    private static func kind(_ bytes: UnsafeRawBufferPointer) -> Kind {
        guard bytes.count >= 2 else { return .other }
        switch Int32(bytes.loadUnaligned(as: sa_family_t.self)) {
        case AF_INET where bytes.count >= 8:
            return .ipv4(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
        case AF_INET6 where bytes.count >= 24:
            let upper = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            let lower = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
            // ::ffff:a.b.c.d is how a socket that listens for both shows IPv4.
            return upper == 0 && lower >> 32 == 0xFFFF ? .ipv4(UInt32(truncatingIfNeeded: lower)) : .ipv6(upper)
        default: return .other
        }
    }
}
