/// Why a token is not accepted, in words for its sender. They tell nothing about keys.
struct TokenError: Error, Sendable, Equatable {
    let text: String

    init(_ text: String) { self.text = text }

    static let malformed = TokenError("the token is not a JWT")
    static let algorithm = TokenError("the token's algorithm is not accepted")
    static let key = TokenError("no key is known for the token")
    static let signature = TokenError("the token's signature is wrong")
    static let expired = TokenError("the token has expired")
    static let notYet = TokenError("the token is not valid yet")
    static let issuer = TokenError("the token's issuer is not accepted")
    static let audience = TokenError("the token is for another audience")
}
