import FoundationEssentials
import JWTKit
import Testing

@testable import DeviceProvisioning

@Suite struct ServiceTokenTests {
    private static let secret = "0123456789abcdef0123456789abcdef"

    @Test func saysWhoCallsForAnHour() async throws {
        let token = ServiceToken(serviceName: "device-service", secret: Self.secret)
        let now = Date(timeIntervalSince1970: Date().timeIntervalSince1970.rounded())
        let text = try await token.value(now: now)
        let keys = JWTKeyCollection()
        await keys.add(hmac: HMACKey(from: Self.secret), digestAlgorithm: .sha256)
        let payload = try await keys.verify(text, as: ServiceToken.Payload.self)
        #expect(payload.service == "device-service")
        #expect(payload.iss.value == "cloudphone-platform")
        #expect(payload.aud.value == ["internal-services"])
        #expect(payload.iat.value == now)
        #expect(payload.exp.value == now.addingTimeInterval(3600))
    }

    @Test func isMadeAnewShortlyBeforeItEnds() async throws {
        let token = ServiceToken(serviceName: "device-service", secret: Self.secret)
        let now = Date()
        let first = try await token.value(now: now)
        #expect(try await token.value(now: now.addingTimeInterval(3299)) == first)
        let second = try await token.value(now: now.addingTimeInterval(3301))
        #expect(second != first)
        // Set back by an hour: what was signed for later is not used.
        #expect(try await token.value(now: now.addingTimeInterval(-3600)) != second)
        token.forget()
        #expect(try await token.value(now: now.addingTimeInterval(3303)) != second)
    }
}
