import Glibc

/// A TCP or unix socket with blocking calls, for the tests' own little servers.
final class BlockingSocket: Sendable {
    let descriptor: Int32
    let port: Int

    struct Failed: Error {
        let call: String
        let code = errno
    }

    private init(_ descriptor: Int32, port: Int) {
        self.descriptor = descriptor
        self.port = port
    }

    deinit { Glibc.close(self.descriptor) }

    /// Listens on a port of 127.0.0.1, or on any that is free.
    static func listening(port: Int = 0) throws -> BlockingSocket {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 64) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard result else {
            Glibc.close(descriptor)
            throw Failed(call: "listen")
        }
        return BlockingSocket(descriptor, port: Int(UInt16(bigEndian: address.sin_port)))
    }

    static func connected(unixPath path: String) throws -> BlockingSocket {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix(107)) }
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
        guard connected else {
            Glibc.close(descriptor)
            throw Failed(call: "connect")
        }
        return BlockingSocket(descriptor, port: 0)
    }

    /// `nil` once the listener was shut down.
    func accepted() -> BlockingSocket? {
        let peer = accept(self.descriptor, nil, nil)
        return peer < 0 ? nil : BlockingSocket(peer, port: 0)
    }

    func shutDown() { shutdown(self.descriptor, Int32(SHUT_RDWR)) }

    /// Returns once there is something to read, which it leaves there.
    func waitForBytes() {
        var byte: UInt8 = 0
        _ = recv(self.descriptor, &byte, 1, Int32(MSG_PEEK))
    }

    /// The next close sends RST, whatever was read.
    func willReset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(self.descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
    }

    /// Empty at the end of the stream or on an error.
    func read() -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(self.descriptor, &buffer, buffer.count)
        return Array(buffer.prefix(max(count, 0)))
    }

    func readToEnd() -> [UInt8] {
        var all: [UInt8] = []
        while case let bytes = self.read(), !bytes.isEmpty { all += bytes }
        return all
    }

    func write(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { send(self.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }
}
