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
    init(status: Int, retryAfter: String?) {
        switch status {
        case 200..<300: self = .done
        case 408, 425: self = .throttled(after: Self.delay(retryAfter))
        case 429 where retryAfter != nil: self = .throttled(after: Self.delay(retryAfter))
        case 400..<500: self = .refused
        default: self = .unknown
        }
    }

    /// The seconds of RFC 9110, 10.2.3; a date is left to the saga's own back-off.
    private static func delay(_ retryAfter: String?) -> Duration? {
        guard let retryAfter, let seconds = Int(retryAfter.filter { $0 != " " }), seconds >= 0 else { return nil }
        return min(.seconds(seconds), Self.maximumDelay)
    }
}
