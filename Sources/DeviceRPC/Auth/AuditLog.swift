import Logging
import NIOCore
import RPCTransport
import Synchronization

/// One line for each call that changes something, or wanted to: who, what, and what came of it.
///
/// Of callers that are not known, one line a second: anybody can make those, and must not fill a disk with them.
final class AuditLog: Sendable {
    private static let changing: Set<String> = [
        "/\(DeviceService.name)/CreateDevice", "/\(DeviceService.name)/DeleteDevice",
        "/\(DeviceService.adminName)/CompensateSaga", "/\(DeviceService.adminName)/ResumeSaga",
    ]

    /// Of what a caller sent, in one field: no more than a valid id has.
    private static let maximumCharacters = 256

    let logger: Logger
    private let unknown = Mutex(UnknownCallers())

    init(logger: Logger) { self.logger = logger }

    /// A call that did not get as far as its handler.
    func refused(_ context: RPCContext, _ error: RPCError) {
        guard Self.changing.contains(context.method) else { return }
        self.write(context, error.code, AuditTrail())
    }

    func ended(_ context: RPCContext, _ code: RPCCode, _ trail: AuditTrail) {
        self.write(context, code, trail)
    }

    private func write(_ context: RPCContext, _ code: RPCCode, _ trail: AuditTrail) {
        let caller = context.identity as? Caller
        var leftOut = 0
        if caller == nil {
            guard let count = self.unknown.withLock({ $0.admit(at: .now()) }) else { return }
            leftOut = count
        }
        let subject = trail.subject
        var metadata: Logger.Metadata = [
            "caller": "\(caller?.name ?? "unknown")", "method": "\(context.method)",
            "saga_id": "\(subject.sagaID)", "device_id": "\(subject.deviceID)",
            "user_id": "\(Self.shown(subject.userID))", "outcome": "\(code.name)", "peer": "\(context.peer)",
        ]
        if leftOut > 0 { metadata["unlogged_before"] = "\(leftOut)" }
        self.logger.notice("[AUDIT]", metadata: metadata)
    }

    /// What a caller made up, checked or not: cut, and without control characters, whatever the log does with them.
    static func shown(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(Self.maximumCharacters) {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator:
                shown += scalar.escaped(asASCII: true)
            default: shown.unicodeScalars.append(scalar)
            }
        }
        return text.unicodeScalars.count > Self.maximumCharacters ? shown + "…" : shown
    }

    /// When lines of callers that are not known were written, and how many were left out since.
    struct UnknownCallers {
        private static let interval = TimeAmount.seconds(1)

        private var next = NIODeadline.uptimeNanoseconds(0)
        private var leftOut = 0

        /// How many were left out before the line that may be written now; `nil`: this one is left out too.
        mutating func admit(at now: NIODeadline) -> Int? {
            guard now >= self.next else {
                self.leftOut += 1
                return nil
            }
            self.next = now + Self.interval
            defer { self.leftOut = 0 }
            return self.leftOut
        }
    }
}

/// What a call turned out to be about, for its line in the audit log.
final class AuditTrail: Sendable {
    struct Subject: Sendable {
        var sagaID = ""
        var deviceID = ""
        var userID = ""
    }

    private let state = Mutex(Subject())

    var subject: Subject { self.state.withLock { $0 } }

    func note(_ change: (inout Subject) -> Void) { self.state.withLock { change(&$0) } }
}
