import NIOCore
import Testing

@testable import RPCTransport

@Suite struct ClientAddressTests {
    private static func address(_ text: String) throws -> ClientAddress {
        ClientAddress(try SocketAddress(ipAddress: text, port: 1))
    }

    @Test(arguments: [
        ("192.0.2.1", "192.0.2.1", true), ("192.0.2.1", "192.0.2.2", false), ("2001:db8::1", "2001:db8::ffff:2", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false), ("::ffff:192.0.2.1", "192.0.2.1", true),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false), ("::1", "192.0.2.1", false), ("::1", "::2", true),
    ])
    func whoeverHasOneHasTheOther(one: String, other: String, isSame: Bool) throws {
        #expect((try Self.address(one) == Self.address(other)) == isSame)
    }

    @Test func noAddress() throws {
        #expect(ClientAddress(try SocketAddress(unixDomainSocketPath: "/tmp/x")) == .none)
        #expect(try Self.address("0.0.0.0") != .none)
    }
}
