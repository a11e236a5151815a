import FoundationEssentials
import JWTKit
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import DeviceRPC

@Suite struct TokenVerifierTests {
    private struct Payload: JWTPayload {
        var iss = "cloudphone-platform"
        var aud = "cloudphone-users"
        var sub = "ann"
        var exp: Double
        var nbf: Double?
        var permissions = ["device:read"]

        func verify(using algorithm: some JWTAlgorithm) throws {}
    }

    private static let secret = String(repeating: "s", count: 32)

    /// A clock that only the test moves.
    private final class TestClock: Sendable {
        private let seconds = Mutex(1000.0)
        var now: Double {
            get { self.seconds.withLock { $0 } }
            set { self.seconds.withLock { $0 = newValue } }
        }
    }

    private let clock = TestClock()

    private func verifier(capacity: Int = 8) async throws -> (TokenVerifier, TokenCache) {
        let cache = TokenCache(capacity: capacity)
        let verifier = TokenVerifier(
            keys: try await TokenKeys(secret: Self.secret, keySet: nil), map: PermissionMap(), cache: cache,
            now: { [clock] in clock.now })
        return (verifier, cache)
    }

    private func token(_ payload: Payload) async throws -> [UInt8] {
        let keys = JWTKeyCollection()
        await keys.add(hmac: HMACKey(from: Self.secret), digestAlgorithm: .sha256)
        return Array(try await keys.sign(payload).utf8)
    }

    private func key(_ token: [UInt8]) -> TokenCache.Key { token.withUnsafeBufferPointer { TokenCache.Key($0) } }

    @Test func aKnownTokenIsKnownUntilItExpires() async throws {
        let (verifier, _) = try await self.verifier()
        let token = try await self.token(Payload(exp: 1060))
        let key = self.key(token)
        #expect(verifier.known(key) == nil)
        let caller = try await verifier.check(token, key: key)
        #expect(caller.kind == .user("ann") && caller.permissions == .deviceRead)
        self.clock.now = 1064
        #expect(verifier.known(key) === caller)
        self.clock.now = 1065
        #expect(verifier.known(key) == nil)
        await #expect(throws: TokenError.expired) { try await verifier.check(token, key: key) }
    }

    /// The clock is asked in the middle of it.
    @Test func freshTokensAreCheckedAwayFromTheEventLoop() async throws {
        let isOnLoop = Mutex<[Bool]>([])
        let verifier = TokenVerifier(
            keys: try await TokenKeys(secret: Self.secret, keySet: nil), map: PermissionMap(),
            now: {
                isOnLoop.withLock { $0.append(MultiThreadedEventLoopGroup.currentEventLoop != nil) }
                return 1000
            })
        let token = try await self.token(Payload(exp: 1060))
        let key = self.key(token)
        // As the transport begins a call: right there, where its headers were read.
        _ = try await MultiThreadedEventLoopGroup.singleton.next().submit {
            Task.immediate { try await verifier.check(token, key: key) }
        }.get().value
        #expect(isOnLoop.withLock { $0 } == [false])
    }

    @Test func clocksMayDifferALittle() async throws {
        let (verifier, _) = try await self.verifier()
        let late = try await self.token(Payload(exp: 996))
        #expect(try await verifier.check(late, key: self.key(late)).kind == .user("ann"))
        let early = try await self.token(Payload(exp: 2000, nbf: 1006))
        await #expect(throws: TokenError.notYet) { try await verifier.check(early, key: self.key(early)) }
        self.clock.now = 1001
        #expect(try await verifier.check(early, key: self.key(early)).kind == .user("ann"))
    }

    @Test func theCacheIsBoundedAndForgetsWhenKeysChange() async throws {
        let (verifier, cache) = try await self.verifier(capacity: 8)
        var tokens: [[UInt8]] = []
        for number in 0..<20 {
            let token = try await self.token(Payload(sub: "user-\(number)", exp: 2000))
            tokens.append(token)
            _ = try await verifier.check(token, key: self.key(token))
        }
        #expect(cache.count == 8)
        #expect(verifier.known(self.key(tokens[19]))?.kind == .user("user-19"))
        #expect(verifier.known(self.key(tokens[11])) == nil)
        // Checked with keys that are gone by the time that it is remembered.
        let generation = cache.generation
        verifier.replaceKeys(try await TokenKeys(secret: String(repeating: "t", count: 32), keySet: nil))
        #expect(cache.count == 0)
        cache.insert(.anyone, for: self.key(tokens[0]), until: 2000, generation: generation)
        #expect(cache.count == 0)
        await #expect(throws: TokenError.signature) { try await verifier.check(tokens[19], key: self.key(tokens[19])) }
    }

    @Test(arguments: [#"{"keys":[]}"#, "[]", "", #"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}"#])
    func keySetsWithoutUsableKeysAreRefused(text: String) async {
        await #expect(throws: TokenKeys.Problem.self) { try await TokenKeys(secret: nil, keySet: Array(text.utf8)) }
    }
}
