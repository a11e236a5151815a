import Glibc
import NIOCore

/// Finds the addresses of a host.
enum AddressResolver {
    struct Failure: Error, CustomStringConvertible {
        let host: String
        let reason: String

        var description: String { "\(self.host) can't be resolved: \(self.reason)" }
    }

    /// The host's addresses, families taking turns (RFC 8305, section 4). May take long for a name: not for event loops.
    static func resolve(_ host: String, port: Int) throws -> [SocketAddress] {
        if let address = try? SocketAddress(ipAddress: host, port: port) { return [address] }
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, nil, &hints, &list)
        // EAI_AGAIN, EAI_FAIL, EAI_NONAME, EAI_MEMORY, EAI_SYSTEM, …: there is no list to free.
        guard code == 0 else { throw Failure(host: host, reason: String(cString: gai_strerror(code))) }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            next = entry.pointee.ai_next
            guard let raw = entry.pointee.ai_addr else { continue }
            switch entry.pointee.ai_family {
            case AF_INET:
                raw.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                    addresses.append(SocketAddress($0.pointee, host: host))
                }
            case AF_INET6:
                raw.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    addresses.append(SocketAddress($0.pointee, host: host))
                }
            default: break
            }
        }
        for index in addresses.indices { addresses[index].port = port }
        if addresses.isEmpty { throw Failure(host: host, reason: "it has no address") }
        return Self.interleaved(addresses)
    }

    /// The same addresses, families taking turns, the first one's first.
    static func interleaved(_ addresses: [SocketAddress]) -> [SocketAddress] {
        guard let family = addresses.first?.protocol else { return [] }
        let first = addresses.filter { $0.protocol == family }
        let second = addresses.filter { $0.protocol != family }
        var result: [SocketAddress] = []
        for index in 0..<max(first.count, second.count) {
            if index < first.count { result.append(first[index]) }
            if index < second.count { result.append(second[index]) }
        }
        return result
    }
}
