import FoundationEssentials
import JWTKit

/// The keys that tokens are checked with, each for one algorithm: what a token says about itself never changes what a
/// key is used for.
struct TokenKeys: Sendable {
    private struct Key: Sendable {
        var id: String?
        var algorithm: any JWTAlgorithm
    }

    /// A key set that can't be used, in words for people.
    struct Problem: Error, Sendable, CustomStringConvertible {
        var description: String
    }

    private static let secretAlgorithm = "HS256"

    /// By `alg`.
    private var keys: [String: [Key]] = [:]
    /// What was left out of the key set, for the log.
    private(set) var ignored: [String] = []

    /// - Parameters:
    ///   - secret: for HS256, and for nothing else.
    ///   - keySet: the bytes of a JWKS (RFC 7517), for RS256, ES256 and EdDSA.
    init(secret: String?, keySet: [UInt8]?) async throws {
        if let secret {
            let collection = JWTKeyCollection()
            await collection.add(hmac: HMACKey(from: secret), digestAlgorithm: .sha256)
            self.keys[Self.secretAlgorithm] = [Key(id: nil, algorithm: try await collection.getKey())]
        }
        guard let keySet else { return }
        let set: JSONWebKeySet
        do {
            set = try JSONDecoder().decode(JSONWebKeySet.self, from: Data(keySet))
        } catch {
            throw Problem(description: "is not a JSON web key set")
        }
        for (index, key) in set.keys.enumerated() {
            if let id = key.kid, let name = try? key.publicKey().algorithm,
                self.keys[name]?.contains(where: { $0.id == id }) == true
            {
                throw Problem(description: "holds two keys \"\(id)\" for \(name)")
            }
            do {
                let (name, jwk) = try key.publicKey()
                let collection = try await JWTKeyCollection().add(jwk: jwk)
                let algorithm = try await collection.getKey(for: jwk.keyIdentifier, alg: name)
                guard algorithm.name == name else { throw Problem(description: "is for another algorithm") }
                self.keys[name, default: []].append(Key(id: key.kid, algorithm: algorithm))
            } catch {
                let problem = (error as? Problem)?.description ?? "is no key"
                self.ignored.append("key \(key.kid.map { "\"\($0)\"" } ?? "\(index)") \(problem)")
            }
        }
        guard self.keys.contains(where: { $0.key != Self.secretAlgorithm }) else {
            throw Problem(
                description: "holds no key for RS256, ES256 or EdDSA"
                    + (self.ignored.isEmpty ? "" : ": \(self.ignored.prefix(3).joined(separator: "; "))"))
        }
    }

    /// - Parameters:
    ///   - algorithm: `alg` of the token's header.
    ///   - id: `kid` of the token's header: no other key will do, but for HS256, of which there is one.
    func check(
        algorithm: String, id: String?, signature: [UInt8], of signed: [UInt8]
    ) throws(TokenError) {
        guard let keys = self.keys[algorithm] else { throw .algorithm }
        let candidates = algorithm == Self.secretAlgorithm || id == nil ? keys[...] : keys.filter { $0.id == id }[...]
        if candidates.isEmpty { throw .key }
        for key in candidates where (try? key.algorithm.verify(signature, signs: signed)) == true { return }
        throw .signature
    }
}
