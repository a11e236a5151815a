import Glibc

/// The addresses that a host's name stands for.
enum AddressList {
    /// Asks the resolver, which may take long. Blocks: call it on a `DedicatedThread`.
    ///
    /// - Returns: one entry per address; none where the resolver knows none.
    static func of(_ host: ConnectionString.Host) -> [ConnectionString.Host] {
        guard let name = host.name else { return [] }
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        // 0, or EAI_…: no such name, no answer, no memory.
        guard getaddrinfo(name, nil, &hints, &list) == 0, let list else { return [] }
        defer { freeaddrinfo(list) }
        var hosts: [ConnectionString.Host] = []
        var entry: UnsafeMutablePointer<addrinfo>? = list
        while let current = entry {
            entry = current.pointee.ai_next
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            guard
                getnameinfo(
                    current.pointee.ai_addr, current.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0,
                    NI_NUMERICHOST) == 0
            else { continue }
            var one = host
            one.address = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if !hosts.contains(one) { hosts.append(one) }
        }
        return hosts
    }
}
