import FoundationEssentials
import Glibc
public import Logging
import NIOCore
public import RPCTransport
import Synchronization

/// Finds out who calls, and lets through who may.
///
/// A service's token in `x-service-token` comes first, then a token in `authorization`, then the certificate of the
/// connection. What is there must be good: a token that is refused is never made up for by something else.
public final class Authenticator: RPCInterceptor {
    /// The key set can't be used.
    public struct KeySetError: Error, CustomStringConvertible {
        public var file: String
        public var problem: String
        public var description: String { "\(self.file) \(self.problem)" }
    }

    private let configuration: AuthenticatorConfiguration
    private let rules: AccessRules
    private let verifier: TokenVerifier
    private let audit: AuditLog
    private let logger: Logger
    /// Of the key set as it was when it was read.
    private let fingerprint: Mutex<FileFingerprint?>
    /// Signatures are checked by half of the cores at most: whoever sends forged ones leaves the rest to others.
    private let checks: FairGate<Client>

    /// - Throws: `KeySetError`.
    public init(
        _ configuration: AuthenticatorConfiguration, rules: AccessRules, audit: AuditLog,
        heldBack: @escaping @Sendable (RPCRefusal) -> Void = { _ in }, logger: Logger
    ) async throws {
        self.checks = FairGate(permits: System.coreCount / 2) { heldBack(.tooManyTokens) }
        self.configuration = configuration
        self.rules = rules
        self.logger = logger
        self.audit = audit
        self.fingerprint = Mutex(configuration.keySetFile.map { FileFingerprint($0) })
        self.verifier = TokenVerifier(
            keys: try await Self.loadKeys(configuration, logger: logger), map: configuration.permissions,
            now: { Double(time(nil)) })
    }

    // MARK: Calls

    public func intercept(_ context: inout RPCContext) async throws {
        let access = self.rules.access(context.method)
        if access == .open { return }
        do {
            let caller = try await self.caller(context)
            context.identity = caller
            if case .oneOf(let permissions) = access, caller.permissions.isDisjoint(with: permissions) {
                throw Self.denied(permissions)
            }
        } catch let error as RPCError {
            // What gets through is told of by its handler.
            await self.audit.refused(context, error.code)
            throw error
        }
    }

    public func interceptAtOnce(_ context: inout RPCContext) throws -> Bool {
        self.rules.access(context.method) == .open
    }

    private func caller(_ context: RPCContext) async throws(RPCError) -> Caller {
        if self.configuration.mode == .tokens {
            if let caller = try await self.caller(in: "x-service-token", context, isBearer: false) {
                guard case .service = caller.kind else { throw Self.unauthenticated("x-service-token is for services") }
                return caller
            }
            if let caller = try await self.caller(in: "authorization", context, isBearer: true) { return caller }
        }
        if let certificate = context.peerCertificate { return try self.caller(certificate) }
        throw Self.unauthenticated(
            self.configuration.mode == .tokens
                ? "a token is needed, in authorization: Bearer … or x-service-token" : "a certificate is needed")
    }

    private func caller(
        in header: StaticString, _ context: RPCContext, isBearer: Bool
    ) async throws(RPCError) -> Caller? {
        var count = 0
        var key: TokenCache.Key?
        var isWellFormed = true
        var unknown: [UInt8] = []
        var known: Caller?
        context.metadata.withValues(of: header) { value in
            count += 1
            guard let token = isBearer ? Self.bearerToken(value) : value else {
                isWellFormed = false
                return
            }
            let hash = TokenCache.Key(token)
            key = hash
            known = self.verifier.known(hash)
            if known == nil { unknown = Array(token) }
        }
        guard count > 0 else { return nil }
        guard count == 1, isWellFormed, let key else {
            throw Self.unauthenticated("\(header) must be there once\(isBearer ? ", with Bearer and a token" : "")")
        }
        if let known { return known }
        do {
            return try await self.checks.pass(Client(context)) { try await self.verifier.check(unknown, key: key) }
        } catch let error as TokenError {
            throw Self.unauthenticated(error.text)
        } catch {
            throw RPCError(.cancelled, "the call was cancelled")
        }
    }

    /// `Bearer`, in whatever case, a space and the token (RFC 6750, section 2.1).
    private static func bearerToken(_ value: UnsafeBufferPointer<UInt8>) -> UnsafeBufferPointer<UInt8>? {
        let scheme: StaticString = "bearer "
        guard value.count > 7,
            zip(value, UnsafeBufferPointer(start: scheme.utf8Start, count: 7)).allSatisfy({ $0 | 32 == $1 })
        else { return nil }
        return UnsafeBufferPointer(rebasing: value[7...])
    }

    private func caller(_ certificate: PeerCertificate) throws(RPCError) -> Caller {
        guard let first = certificate.names.first else {
            throw Self.unauthenticated("the certificate has no alternative name of type URI or DNS")
        }
        for name in certificate.names {
            guard let grant = self.configuration.permissions.certificates[name] else { continue }
            return Caller(.certificate(name), permissions: grant.permissions)
        }
        return Caller(.certificate(first), permissions: [])
    }

    private static func unauthenticated(_ text: String) -> RPCError { RPCError(ErrorReason.unauthenticated, text) }

    private static func denied(_ permissions: Permissions) -> RPCError {
        let names = permissions.list.joined(separator: " or ")
        return RPCError(.permissionDenied, "that takes the permission \(names)", metadata: ["permission": names])
    }

    // MARK: Keys

    /// Follows the key set's file until cancelled.
    public func run() async {
        guard let file = self.configuration.keySetFile else { return }
        // What could not be used, and was said. It is tried again, since not only the file may have been to blame.
        var rejected: (fingerprint: FileFingerprint, problem: String)?
        while !Task.isCancelled {
            try? await Task.sleep(for: self.configuration.reloadInterval)
            let fingerprint = FileFingerprint(file)
            guard self.fingerprint.withLock({ $0 != fingerprint }) else { continue }
            do {
                self.verifier.replaceKeys(try await Self.loadKeys(self.configuration, logger: self.logger))
                self.fingerprint.withLock { $0 = fingerprint }
                rejected = nil
                self.logger.notice("The keys of tokens were read again", metadata: ["file": "\(file)"])
            } catch {
                let problem = "\(error)"
                if rejected?.fingerprint != fingerprint || rejected?.problem != problem {
                    self.logger.error("The keys of tokens that were read before stay in use: \(problem)")
                }
                rejected = (fingerprint, problem)
            }
        }
    }

    /// - Throws: `KeySetError`.
    static func loadKeys(
        _ configuration: AuthenticatorConfiguration, logger: Logger? = nil
    ) async throws -> TokenKeys {
        guard configuration.mode == .tokens else { return try await TokenKeys(secret: nil, keySet: nil) }
        guard let file = configuration.keySetFile else {
            return try await TokenKeys(secret: configuration.secret, keySet: nil)
        }
        do {
            let bytes = try Data(contentsOf: URL(filePath: file))
            let keys = try await TokenKeys(secret: configuration.secret, keySet: Array(bytes))
            for ignored in keys.ignored { logger?.warning("The key set's \(ignored): it is left out") }
            return keys
        } catch let problem as TokenKeys.Problem {
            throw KeySetError(file: file, problem: problem.description)
        } catch {
            throw KeySetError(file: file, problem: "can't be read")
        }
    }
}
