import FoundationEssentials
import RPCTransport
import Synchronization

/// Tells from a token who calls.
final class TokenVerifier: Sendable {
    private struct Header: Decodable {
        var alg: String
        var kid: String?
        /// Extensions that must be understood (RFC 7515, section 4.1.11): none is.
        var crit: [String]?
    }

    private let map: PermissionMap
    private let keys: Mutex<TokenKeys>
    private let cache: TokenCache
    /// Seconds since 1970.
    private let now: @Sendable () -> Double

    init(
        keys: TokenKeys, map: PermissionMap, cache: TokenCache = TokenCache(), now: @escaping @Sendable () -> Double
    ) {
        self.keys = Mutex(keys)
        self.map = map
        self.cache = cache
        self.now = now
    }

    func replaceKeys(_ keys: TokenKeys) {
        self.keys.withLock { $0 = keys }
        self.cache.invalidate()
    }

    /// Who sent the token, if it was checked before.
    func known(_ key: TokenCache.Key) -> Caller? { self.cache.caller(key, now: self.now()) }

    /// Checks the token away from the event loop: a signature takes up to a tenth of a millisecond.
    func check(_ token: [UInt8], key: TokenCache.Key) async throws(TokenError) -> Caller {
        try await awayFromEventLoop { () throws(TokenError) in try self.checked(token, key: key) }
    }

    private func checked(_ token: [UInt8], key: TokenCache.Key) throws(TokenError) -> Caller {
        let generation = self.cache.generation
        let now = self.now()
        let claims = try self.verified(token)
        let caller = try claims.caller(self.map, now: now)
        self.cache.insert(
            caller, for: key, until: (claims.expires ?? now) + TokenClaims.leeway, generation: generation)
        return caller
    }

    private func verified(_ token: [UInt8]) throws(TokenError) -> TokenClaims {
        let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, let header = Self.decoded(parts[0], as: Header.self),
            let signature = Self.bytes(parts[2])
        else { throw .malformed }
        guard header.crit == nil else { throw TokenError("the token's header has extensions that are not known") }
        try self.keys.withLock { $0 }.check(
            algorithm: header.alg, id: header.kid, signature: signature, of: Array(token[..<parts[1].endIndex]))
        guard let claims = Self.decoded(parts[1], as: TokenClaims.self) else {
            throw TokenError("the token's claims are not what they should be")
        }
        return claims
    }

    /// Base64url without padding (RFC 7515, section 2).
    private static func bytes(_ part: ArraySlice<UInt8>) -> [UInt8]? {
        let isURLSafe = part.allSatisfy { ![UInt8(ascii: "+"), UInt8(ascii: "/"), UInt8(ascii: "=")].contains($0) }
        return isURLSafe ? Base64Text.decode(String(decoding: part, as: UTF8.self)) : nil
    }

    private static func decoded<Value: Decodable>(_ part: ArraySlice<UInt8>, as type: Value.Type) -> Value? {
        guard let bytes = Self.bytes(part) else { return nil }
        return try? JSONDecoder().decode(type, from: Data(bytes))
    }
}
