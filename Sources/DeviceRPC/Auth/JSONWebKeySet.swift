import JWTKit

/// A JWKS file as it is written; other members are of no interest.
struct JSONWebKeySet: Decodable {
    struct Key: Decodable {
        var kty: String
        var kid: String?
        var alg: String?
        var use: String?
        var crv: String?
        var n: String?
        var e: String?
        var x: String?
        var y: String?
    }

    var keys: [Key]
}

extension JSONWebKeySet.Key {
    /// 2048 bits, base64url-encoded (RFC 7518, section 3.3).
    private static let minimumModulusLength = 342

    /// The one algorithm that this key is for, and its public part.
    ///
    /// - Throws: `TokenKeys.Problem`.
    func publicKey() throws(TokenKeys.Problem) -> (algorithm: String, key: JWK) {
        if let use, use != "sig" { throw TokenKeys.Problem(description: "is not for signatures") }
        let id = JWKIdentifier(string: self.kid ?? "-")
        let (name, key): (String, JWK)
        switch (self.kty, self.crv) {
        case ("RSA", _):
            guard (self.n?.utf8.count ?? 0) >= Self.minimumModulusLength else {
                throw TokenKeys.Problem(description: "has fewer than 2048 bits")
            }
            (name, key) = ("RS256", .rsa(.rs256, identifier: id, modulus: self.n, exponent: self.e))
        case ("EC", "P-256"):
            (name, key) = ("ES256", .ecdsa(.es256, identifier: id, x: self.x, y: self.y, curve: .p256))
        case ("OKP", "Ed25519"):
            (name, key) = ("EdDSA", .octetKeyPair(.eddsa, identifier: id, x: self.x, y: nil, curve: .ed25519))
        default:
            // Shared secrets (oct) among them: a file of public keys is no place for one.
            throw TokenKeys.Problem(description: "is of a kind that is not used here")
        }
        if let alg, alg != name { throw TokenKeys.Problem(description: "is for \(alg.prefix(16))") }
        return (name, key)
    }
}
