import SagaRuntime

/// What an HTTP status of the user service means for a report of usage.
enum QuotaAnswer: Equatable {
    case done
    /// Definite: not counted.
    case refused
    /// Definite: not counted. Come back later.
    case throttled(after: Duration?)
    /// It may have been counted.
    case unknown

    /// How long a `Retry-After` is believed at most.
    static let maximumDelay: Duration = .seconds(300)

    /// Any 4xx is a refusal but 408 and 425 (the request was not taken up) and 429 with Retry-After. Everything else but
    /// 2xx may come from a proxy in between as well as from the service itself, after it counted.
    ///
    /// - Parameter now: seconds since 1970, for a `Retry-After` that is a date.
    init(status: Int, retryAfter: String?, now: Int64) {
        switch status {
        case 200..<300: self = .done
        case 408, 425: self = .throttled(after: Self.delay(retryAfter, now))
        case 429 where retryAfter != nil: self = .throttled(after: Self.delay(retryAfter, now))
        case 400..<500: self = .refused
        default: self = .unknown
        }
    }

    /// Seconds or a date (RFC 9110, 10.2.3); anything else is left to the saga's own back-off.
    private static func delay(_ retryAfter: String?, _ now: Int64) -> Duration? {
        guard let text = retryAfter?.drop(while: { $0 == " " }) else { return nil }
        let word = text.prefix { $0 != " " }
        let isNumber = !word.isEmpty && word.utf8.allSatisfy { (48...57).contains($0) }
        if isNumber {
            guard text.dropFirst(word.count).allSatisfy({ $0 == " " }) else { return nil }
            // What doesn't fit is more than what is believed in any case.
            return Int64(word).map { min(.seconds($0), Self.maximumDelay) } ?? Self.maximumDelay
        }
        return HTTPDate.seconds(text, now: now).map { min(max(.seconds($0 - now), .zero), Self.maximumDelay) }
    }
}
