/// Which header names belong to the protocol and not to the application (PROTOCOL-HTTP2.md, Custom-Metadata).
enum ReservedHeaders {
    static func contains(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
        guard let first = name.first else { return true }
        switch first {
        case UInt8(ascii: ":"): return true
        case UInt8(ascii: "g"):
            return hasPrefix(name, "grpc-") && !equal(name, "grpc-retry-pushback-ms")
                && !equal(name, "grpc-previous-rpc-attempts")
        case UInt8(ascii: "c"):
            return equal(name, "content-type") || equal(name, "content-length") || equal(name, "connection")
        case UInt8(ascii: "t"): return equal(name, "te") || equal(name, "transfer-encoding") || equal(name, "trailer")
        case UInt8(ascii: "h"): return equal(name, "host")
        case UInt8(ascii: "k"): return equal(name, "keep-alive")
        case UInt8(ascii: "p"): return equal(name, "proxy-connection")
        case UInt8(ascii: "u"): return equal(name, "upgrade")
        default: return false
        }
    }
}
