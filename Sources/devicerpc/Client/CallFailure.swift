import DeviceRPC
import NIOCore
import RPCTransport

/// A call that the server, or the way to it, answered with an error: its status and what the details say.
struct CallFailure: Error {
    let code: RPCCode
    let message: String
    /// `google.rpc.ErrorInfo.reason`, e.g. `PORTS_EXHAUSTED`; empty if the error has none.
    let reason: String
    /// `google.rpc.ErrorInfo.metadata`.
    let info: [String: String]
    /// Fields of the request that are wrong.
    let violations: [GoogleRPC.FieldViolation]
    /// How long the server asks to wait; `nil` if it says nothing, negative if it says not to try again, or nonsense.
    let pushback: Duration?

    /// What an element of a stream failed with.
    init(_ status: GoogleRPC.Status) {
        var error = RPCError(
            RPCCode(rawValue: Int(status.code)) ?? .unknown, status.message,
            details: Array(status.encoded().readableBytesView))
        if let delay = status.detail(GoogleRPC.RetryInfo.self)?.retryDelay?.duration {
            error.metadata.append(RPCError.pushbackTrailer, "\(delay.components.seconds * 1000)")
        }
        self.init(error)
    }

    init(_ error: RPCError) {
        self.code = error.code
        self.message = error.message
        let status = try? GoogleRPC.Status(decoding: ByteBuffer(bytes: error.details), limits: .response)
        let info = status?.detail(GoogleRPC.ErrorInfo.self)
        self.reason = info?.reason ?? ""
        self.info = info?.metadata ?? [:]
        self.violations = status?.detail(GoogleRPC.BadRequest.self)?.fieldViolations ?? []
        self.pushback =
            switch error.retryAdvice {
            case .unsaid: nil
            // No number: as bad as a negative one (gRFC A6).
            case .never: .milliseconds(-1)
            // Zero would have a server that says so for long be asked without pause.
            case .after(let wait): max(wait, Self.shortestWait)
            }
    }

    private static let shortestWait = Duration.milliseconds(10)

    /// The saga that failed; `nil`: no saga is known to have started.
    var sagaID: String? { self.info["saga_id"] }

    /// Whether the same call under the same request id may end otherwise.
    var isRetryable: Bool {
        // UNAVAILABLE with a saga: it goes on, and only the wait for it has ended.
        if self.sagaID != nil, self.code != .unavailable { return false }
        if let pushback = self.pushback, pushback < .zero { return false }
        switch self.code {
        case .unavailable: return true
        case .resourceExhausted: return self.reason == "OVERLOADED"
        default: return false
        }
    }

    var status: CommandStatus {
        if self.reason == "PARKED" { return .parked }
        if self.sagaID != nil, self.code != .unavailable { return .failed }
        switch self.code {
        case .unavailable: return .unavailable
        case .resourceExhausted: return self.reason == "OVERLOADED" ? .unavailable : .refused
        case .notFound: return .notFound
        case .deadlineExceeded: return .timedOut
        // Not by us: a signal ends this program at once.
        case .cancelled, .internal, .unknown, .dataLoss: return .internalError
        case .ok, .invalidArgument, .alreadyExists, .permissionDenied, .failedPrecondition, .aborted, .outOfRange,
            .unimplemented, .unauthenticated:
            return .refused
        }
    }

    /// For people: status, reason and message, then fields and metadata indented.
    func text(style: TextStyle) -> String {
        let reason = self.reason == self.code.name ? "" : self.reason
        let head = [self.code.name, reason].filter { !$0.isEmpty }.joined(separator: " ")
        var text = "\(style.red("error:")) \(style.bold(Printable.text(head)))"
        if !self.message.isEmpty { text += ": \(Printable.text(self.message))" }
        text += "\n"
        for violation in self.violations {
            text += "  \(Printable.text(violation.field)): \(Printable.text(violation.explanation))\n"
        }
        for (key, value) in self.info.sorted(by: { $0.key < $1.key }) {
            text += "  \(Printable.text(key)): \(Printable.text(value))\n"
        }
        return text
    }

    /// One line, with the names of proto3 JSON.
    func json() -> String {
        var text = "{\"error\":{\"code\":\(JSONText.quoted(self.code.name))"
        text += ",\"reason\":\(JSONText.quoted(self.reason)),\"message\":\(JSONText.quoted(self.message))"
        if !self.violations.isEmpty {
            let fields = self.violations.map {
                "{\"field\":\(JSONText.quoted($0.field)),\"description\":\(JSONText.quoted($0.explanation))}"
            }
            text += ",\"fieldViolations\":[\(fields.joined(separator: ","))]"
        }
        if !self.info.isEmpty {
            let entries = self.info.sorted { $0.key < $1.key }
                .map { "\(JSONText.quoted($0.key)):\(JSONText.quoted($0.value))" }
            text += ",\"metadata\":{\(entries.joined(separator: ","))}"
        }
        return text + "}}\n"
    }
}
