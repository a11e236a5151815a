import Glibc

/// A method under its path. A class, so that a call refers to its route at the price of one reference.
final class Route: Sendable {
    /// `/package.Service/Method`
    let path: String
    let method: RPCMethod

    init(path: String, method: RPCMethod) {
        self.path = path
        self.method = method
    }
}

/// Finds a method by the bytes of its path, without making a string of them.
///
/// Paths must be equal byte by byte. What is not in the table is unknown, however it is spelled: there is no other
/// form of a path that authorization could see (CVE-2026-33186).
struct Router: Sendable {
    private let routes: [Route]
    private let paths: [[UInt8]]
    /// Indices into `routes`, open addressing, at most half full; -1 is empty.
    private let table: [Int32]
    let serviceNames: Set<String>

    /// A path that comes twice leads to the first method of that path.
    init(services: [RPCService]) {
        self.routes = services.flatMap { service in
            service.methods.map { Route(path: "/\(service.name)/\($0.name)", method: $0) }
        }
        self.paths = self.routes.map { Array($0.path.utf8) }
        self.serviceNames = Set(services.map(\.name))
        var size = 16
        while size < self.routes.count * 2 { size *= 2 }
        var table = [Int32](repeating: -1, count: size)
        for (index, path) in self.paths.enumerated() {
            var slot = path.withUnsafeBufferPointer { Self.hash($0) } & (size - 1)
            while table[slot] != -1 { slot = (slot + 1) & (size - 1) }
            table[slot] = Int32(index)
        }
        self.table = table
    }

    func route(_ path: UnsafeBufferPointer<UInt8>) -> Route? {
        let mask = self.table.count - 1
        var slot = Self.hash(path) & mask
        while self.table[slot] != -1 {
            let index = Int(self.table[slot])
            let isEqual = self.paths[index].withUnsafeBufferPointer { candidate in
                guard candidate.count == path.count, let a = candidate.baseAddress, let b = path.baseAddress else {
                    return false
                }
                return memcmp(a, b, path.count) == 0
            }
            if isEqual { return self.routes[index] }
            slot = (slot + 1) & mask
        }
        return nil
    }

    /// Why there is no route: an unknown method of a known service, or neither. The words are grpc-go's.
    func explainUnknown(_ path: UnsafeBufferPointer<UInt8>) -> RPCError {
        // By bytes: to go back over characters takes the square of their number where each belongs to those before it, such
        // as the halves of flags.
        let slash = UInt8(ascii: "/")
        guard path.first == slash, let last = path.lastIndex(of: slash), last > 0 else {
            return RPCError(.unimplemented, "malformed method name")
        }
        let service = Self.shown(path[1..<last])
        guard self.serviceNames.contains(service) else {
            return RPCError(.unimplemented, "unknown service \(service)")
        }
        return RPCError(.unimplemented, "unknown method \(Self.shown(path[(last + 1)...])) for service \(service)")
    }

    /// The beginning, since a client may make up what it likes; all of a name of ours.
    private static func shown(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> String {
        lossyString(UnsafeBufferPointer(rebasing: bytes.prefix(128)))
    }

    /// FNV-1a. The table is ours and fixed, so that nobody can fill it with collisions.
    private static func hash(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
        var hash: UInt32 = 2_166_136_261
        for byte in bytes { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return Int(hash ^ (hash >> 15))
    }
}
