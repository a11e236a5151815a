/// Why an attempt of a step did not succeed, classified by the step itself (docs/saga-state-machine.md).
///
/// The class decides what the engine does next; texts are for people and never decide anything.
public struct StepError: Error, Sendable, Equatable {
    public enum Class: Sendable, Equatable {
        /// The request can never succeed. Definite: nothing happened.
        case invalid
        /// The other side said no (quota, policy). Definite: nothing happened.
        case refused
        /// What an earlier database step granted proved unusable (a port taken by a stranger): that step is done
        /// again. Definite: nothing happened.
        case conflict(redoing: String)
        /// The thing acted on does not exist.
        case notFound
        /// Come back later. Definite: nothing happened. `after`: the other side's own word, if it gave one.
        case throttled(after: Duration?)
        /// The other side could not be reached or could not serve. Definite: nothing happened.
        case unavailable
        /// The effect may or may not have happened (lost reply, time-out, cancelled in flight).
        case unknownOutcome
        /// Unknown outcome that nobody can be asked about: the saga parks.
        case undecidable
        /// This process lost the trust in its lease before the request was sent. Nothing happened.
        case leaseLost
    }

    public var errorClass: Class
    /// Stable and machine readable, e.g. `PROVIDER_UNAVAILABLE`.
    public var reason: String
    /// For people; sanitised and capped at the boundary (`Text.sanitised`). Never holds a secret.
    public var message: String

    public init(_ errorClass: Class, reason: String, message: String) {
        self.errorClass = errorClass
        self.reason = reason
        self.message = Text.sanitised(message)
    }

    /// Only these are tried again (with the same idempotency key).
    public var isRetryable: Bool {
        switch self.errorClass {
        case .throttled, .unavailable, .unknownOutcome, .leaseLost: true
        case .invalid, .refused, .conflict, .notFound, .undecidable: false
        }
    }
}

/// Text from outside, made fit for a `text` column and a trailer.
public enum Text {
    /// Removes NUL, repairs nothing else (a Swift `String` is valid Unicode already) and caps the length.
    public static func sanitised(_ text: String, maximumScalars: Int = 1000) -> String {
        var result = String.UnicodeScalarView()
        var count = 0
        for scalar in text.unicodeScalars where scalar.value != 0 {
            if count == maximumScalars { break }
            result.append(scalar)
            count += 1
        }
        return String(result)
    }
}
