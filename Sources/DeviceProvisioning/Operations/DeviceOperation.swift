import SagaRuntime

/// What can be done with a device that is there.
///
/// | device is             | deletion      | start           | stop          | restart         |
/// |-----------------------|---------------|-----------------|---------------|-----------------|
/// | CREATING              | DELETING      | DEVICE_BUSY     | DEVICE_BUSY   | DEVICE_BUSY     |
/// | RUNNING               | DELETING      | nothing to do   | STOPPING      | STOPPING        |
/// | STOPPED               | DELETING      | STARTING        | nothing to do | STOPPING        |
/// | ERROR                 | DELETING      | DEVICE_STATE    | DEVICE_STATE  | DEVICE_STATE    |
/// | DELETING              | nothing to do | DEVICE_BUSY     | DEVICE_BUSY   | DEVICE_BUSY     |
/// | STARTING, STOPPING    | DELETING      | DEVICE_BUSY     | DEVICE_BUSY   | DEVICE_BUSY     |
public enum DeviceOperation: Sendable, CaseIterable {
    case deletion, start, stop, restart

    /// `saga_state.saga_type`.
    public var type: String {
        switch self {
        case .deletion: "DEVICE_DELETION"
        case .start: "DEVICE_START"
        case .stop: "DEVICE_STOP"
        case .restart: "DEVICE_RESTART"
        }
    }

    /// What the device is while it is under way, at first.
    var during: DeviceStatus {
        switch self {
        case .deletion: .deleting
        case .start: .starting
        case .stop, .restart: .stopping
        }
    }

    /// What the device may be before; `nil`: anything.
    var from: [DeviceStatus]? {
        switch self {
        case .deletion: nil
        case .start: [.stopped]
        case .stop: [.running]
        case .restart: [.running, .stopped]
        }
    }

    /// What the device is afterwards; one that is that before needs nothing done. `nil`: gone.
    var goal: DeviceStatus? {
        switch self {
        case .deletion: nil
        case .start, .restart: .running
        case .stop: .stopped
        }
    }

    /// Whether others that hold the device must give way to it.
    var wins: Bool { self == .deletion }

    /// Whether a device that nobody holds can be claimed, or needs nothing done.
    func suits(_ status: DeviceStatus) -> Bool { self.from?.contains(status) ?? true || status == self.goal }

    public static let busyReason = "DEVICE_BUSY"
    public static let stateReason = "DEVICE_STATE"

    static func busy(_ holder: SagaSnapshot) -> StepError {
        StepError(
            .refused, reason: Self.busyReason, message: "\(holder.id.rawValue) (\(holder.type)) holds the device")
    }

    func refusal(_ problem: String) -> StepError {
        let allowed = (self.from ?? []).map(\.name).joined(separator: " or ")
        return StepError(
            .refused, reason: Self.stateReason, message: "\(problem) (\(self.type) takes one that is \(allowed))")
    }
}
