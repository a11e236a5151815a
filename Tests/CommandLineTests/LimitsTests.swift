import RPCTransport
import Testing

@testable import devicerpc

@Suite struct LimitsTests {
    /// What the reference says is what the transport does by itself.
    @Test func defaultsAreTheTransports() {
        let transport = RPCServerConfiguration()
        for (key, setting) in Settings.Limits.integers {
            #expect(transport[keyPath: key] == setting.fallback, "\(setting.description.name)")
        }
        for (key, setting) in Settings.Limits.durations {
            #expect(transport[keyPath: key] == setting.fallback, "\(setting.description.name)")
        }
    }
}
