public import Logging
import NIOCore
import RPCTransport
import Synchronization

/// One line for each call that changes something, or wanted to: who, what, and what came of it. A stream of requests has one
/// for each of them.
///
/// What was refused changed nothing, and anybody can call for that: one line a second for each caller, and one for all that
/// are not known.
public final class AuditLog: Sendable {
    private static let changing: Set<String> = [
        "/\(DeviceService.name)/CreateDevice", "/\(DeviceService.name)/CreateDevices",
        "/\(DeviceService.name)/DeleteDevice", "/\(DeviceService.name)/StartDevice",
        "/\(DeviceService.name)/StopDevice", "/\(DeviceService.name)/RestartDevice",
        "/\(DeviceAdminService.name)/CompensateSaga", "/\(DeviceAdminService.name)/ResumeSaga",
    ]

    /// Of what a caller sent, in one field: no more than a valid id has.
    private static let maximumCharacters = 256
    private static let maximumReasonCharacters = 1000
    /// Callers that are remembered for having been refused.
    private static let maximumCallers = 1024

    private let logger: Logger
    private let now: @Sendable () -> NIODeadline
    /// By the caller's name; nil: not known.
    private let refusals = Mutex(LogAllowance<String?>(capacity: AuditLog.maximumCallers))

    public convenience init(logger: Logger) { self.init(logger: logger, now: { .now() }) }

    init(logger: Logger, now: @escaping @Sendable () -> NIODeadline) {
        self.logger = logger
        self.now = now
    }

    /// A call that has changed nothing. It may not have left its event loop, where nothing must block.
    func refused(_ context: RPCContext, _ code: RPCCode, _ trail: AuditTrail = AuditTrail()) async {
        guard Self.changing.contains(context.method) else { return }
        let name = (context.identity as? Caller)?.name
        guard let line = self.refusals.withLock({ $0.admit(name, at: self.now()) }) else { return }
        await awayFromEventLoop { self.write(context, code, trail.subject, line) }
    }

    /// A call that got as far as its handler.
    func ended(_ context: RPCContext, _ code: RPCCode, _ trail: AuditTrail) async {
        let subject = trail.subject
        if subject.changesNothing { return }
        if code == .ok || !subject.sagaID.isEmpty {
            self.write(context, code, subject, nil)
        } else {
            await self.refused(context, code, trail)
        }
    }

    private func write(
        _ context: RPCContext, _ code: RPCCode, _ subject: AuditTrail.Subject, _ line: LogAllowance<String?>.Line?
    ) {
        let caller = context.identity as? Caller
        var metadata: Logger.Metadata = [
            "caller": "\(caller?.name ?? "unknown")", "method": "\(context.method)",
            "saga_id": "\(subject.sagaID)", "device_id": "\(subject.deviceID)",
            "user_id": "\(Self.shown(subject.userID))", "outcome": "\(code.name)", "peer": "\(context.peer)",
        ]
        if !subject.reason.isEmpty {
            metadata["reason"] = "\(Self.shown(subject.reason, maximumCharacters: Self.maximumReasonCharacters))"
        }
        if let id = context.metadata.requestID { metadata["x_request_id"] = "\(id)" }
        if let line, line.leftOut > 0 { metadata["unlogged_before"] = "\(line.leftOut)" }
        if let line, line.leftOutOfOthers > 0 { metadata["unlogged_of_others"] = "\(line.leftOutOfOthers)" }
        self.logger.notice("[AUDIT]", metadata: metadata)
    }

    /// What a caller made up, checked or not: cut, and without control characters, whatever the log does with them.
    static func shown(_ text: String, maximumCharacters: Int = AuditLog.maximumCharacters) -> String {
        if text.utf8.count <= maximumCharacters, text.utf8.allSatisfy({ (32..<127).contains($0) }) { return text }
        var shown = ""
        for scalar in text.unicodeScalars.prefix(maximumCharacters) {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator:
                shown += scalar.escaped(asASCII: true)
            default: shown.unicodeScalars.append(scalar)
            }
        }
        return text.unicodeScalars.count > maximumCharacters ? shown + "…" : shown
    }
}

/// What a call turned out to be about, for its line in the audit log.
final class AuditTrail: Sendable {
    struct Subject: Sendable {
        /// Of a saga that was begun, or may have been: the call may have changed something.
        var sagaID = ""
        var deviceID = ""
        var userID = ""
        /// It was asked whether it could be done, no more.
        var changesNothing = false
        /// Why the caller wished it, in its own words.
        var reason = ""
    }

    private let state = Mutex(Subject())

    var subject: Subject { self.state.withLock { $0 } }

    func note(_ change: (inout Subject) -> Void) { self.state.withLock { change(&$0) } }
}
