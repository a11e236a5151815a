import Logging
import RPCTransport
import Synchronization

/// One line for each call that changes something, or wanted to: who, what, and what came of it.
struct AuditLog: Sendable {
    private static let changing: Set<String> = [
        "/\(DeviceService.name)/CreateDevice", "/\(DeviceService.name)/DeleteDevice",
        "/\(DeviceService.adminName)/CompensateSaga", "/\(DeviceService.adminName)/ResumeSaga",
    ]

    let logger: Logger

    /// A call that did not get as far as its handler.
    func refused(_ context: RPCContext, _ error: RPCError) {
        guard Self.changing.contains(context.method) else { return }
        self.write(context, error.code, AuditTrail())
    }

    func ended(_ context: RPCContext, _ code: RPCCode, _ trail: AuditTrail) {
        self.write(context, code, trail)
    }

    private func write(_ context: RPCContext, _ code: RPCCode, _ trail: AuditTrail) {
        let subject = trail.subject
        self.logger.notice(
            "[AUDIT]",
            metadata: [
                "caller": "\((context.identity as? Caller)?.name ?? "unknown")", "method": "\(context.method)",
                "saga_id": "\(subject.sagaID)", "device_id": "\(subject.deviceID)", "user_id": "\(subject.userID)",
                "outcome": "\(code.name)", "peer": "\(context.peer)",
            ])
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
