import FoundationEssentials
import JWTKit
import Synchronization

/// The token that shows the user service who calls: HS256, 1 h, made anew shortly before it ends.
final class ServiceToken: Sendable {
    struct Payload: JWTPayload, Equatable {
        var service: String
        var iss: IssuerClaim
        var aud: AudienceClaim
        var iat: IssuedAtClaim
        var exp: ExpirationClaim

        func verify(using algorithm: some JWTAlgorithm) throws {
            try self.exp.verifyNotExpired()
        }
    }

    static let issuer = "cloudphone-platform"
    static let audience = "internal-services"
    static let lifetimeSeconds: Double = 3600
    /// A token is not used in the last part of its life, so that it does not end on its way.
    static let renewalSeconds: Double = 300

    private let serviceName: String
    private let keys: JWTKeyCollection
    private let secret: String
    private let cached = Mutex<(token: String, until: Date)?>(nil)

    init(serviceName: String, secret: String) {
        self.serviceName = serviceName
        self.secret = secret
        self.keys = JWTKeyCollection()
    }

    /// - Parameter now: the other side checks by its own clock.
    func value(now: Date) async throws -> String {
        // A clock that was set back must not keep a token from the future in use.
        if let cached = self.cached.withLock({ $0 }), now < cached.until,
            now.addingTimeInterval(Self.lifetimeSeconds) >= cached.until
        {
            return cached.token
        }
        await self.keys.add(hmac: HMACKey(from: self.secret), digestAlgorithm: .sha256)
        let token = try await self.keys.sign(
            Payload(
                service: self.serviceName, iss: IssuerClaim(value: Self.issuer),
                aud: AudienceClaim(value: [Self.audience]), iat: IssuedAtClaim(value: now),
                exp: ExpirationClaim(value: now.addingTimeInterval(Self.lifetimeSeconds))))
        let until = now.addingTimeInterval(Self.lifetimeSeconds - Self.renewalSeconds)
        self.cached.withLock { $0 = (token, until) }
        return token
    }

    /// The service did not accept it: the next request carries a new one.
    func forget() {
        self.cached.withLock { $0 = nil }
    }
}
