public import RPCTransport

/// What went wrong, for programs: `google.rpc.ErrorInfo.reason`, with the status code that goes with it (see the header of
/// `DeviceService` in the contract).
public struct ErrorReason: Sendable, Hashable, CustomStringConvertible {
    /// `google.rpc.ErrorInfo.domain` of every error of this service.
    public static let domain = "device.cloudphone"

    public var name: String
    public var code: RPCCode

    private init(_ name: String, _ code: RPCCode) {
        self.name = name
        self.code = code
    }

    public var description: String { self.name }

    // MARK: No saga is known to have started

    public static let invalidField = Self("INVALID_FIELD", .invalidArgument)
    public static let requestIDReused = Self("REQUEST_ID_REUSED", .alreadyExists)
    public static let overloaded = Self("OVERLOADED", .resourceExhausted)
    /// A stream whose client doesn't read what it is sent.
    public static let clientTooSlow = Self("CLIENT_TOO_SLOW", .resourceExhausted)
    public static let databaseUnavailable = Self("DATABASE_UNAVAILABLE", .unavailable)
    public static let shuttingDown = Self("SHUTTING_DOWN", .unavailable)
    /// Not all live servers know what was asked for yet.
    public static let upgrading = Self("UPGRADING", .unavailable)
    public static let unauthenticated = Self("UNAUTHENTICATED", .unauthenticated)
    public static let permissionDenied = Self("PERMISSION_DENIED", .permissionDenied)
    public static let notFound = Self("NOT_FOUND", .notFound)
    /// WatchSaga: `after_sequence` is beyond the newest event.
    public static let sequenceOutOfRange = Self("SEQUENCE_OUT_OF_RANGE", .outOfRange)
    /// CompensateSaga: COMPLETED.
    public static let sagaCompleted = Self("SAGA_COMPLETED", .failedPrecondition)
    /// ResumeSaga: not PARKED, or not parked where its step may be skipped.
    public static let sagaNotParked = Self("SAGA_NOT_PARKED", .failedPrecondition)
    /// CompensateSaga: it can only go forward.
    public static let pastPivot = Self("PAST_PIVOT", .failedPrecondition)
    /// It ended, or parked, before the command was obeyed.
    public static let tooLate = Self("TOO_LATE", .failedPrecondition)
    public static let unimplemented = Self("UNIMPLEMENTED", .unimplemented)

    // MARK: The saga ran and is undone

    public static let quotaRefused = Self("QUOTA_REFUSED", .resourceExhausted)
    public static let portsExhausted = Self("PORTS_EXHAUSTED", .resourceExhausted)
    public static let capacityExhausted = Self("CAPACITY_EXHAUSTED", .resourceExhausted)
    public static let providerRefused = Self("PROVIDER_REFUSED", .invalidArgument)
    public static let providerUnavailable = Self("PROVIDER_UNAVAILABLE", .aborted)
    public static let quotaUnavailable = Self("QUOTA_UNAVAILABLE", .aborted)
    public static let bootFailed = Self("BOOT_FAILED", .aborted)
    public static let timedOut = Self("TIMED_OUT", .aborted)
    public static let cancelled = Self("CANCELLED", .aborted)
    /// Another saga holds the device.
    public static let deviceBusy = Self("DEVICE_BUSY", .failedPrecondition)
    /// The device is not what it must be for that.
    public static let deviceState = Self("DEVICE_STATE", .failedPrecondition)

    // MARK: The saga ran and is not undone

    public static let parked = Self("PARKED", .failedPrecondition)

    /// The reasons that a saga that is undone may have failed for.
    public static let undone: [ErrorReason] = [
        .quotaRefused, .portsExhausted, .capacityExhausted, .providerRefused, .providerUnavailable, .quotaUnavailable,
        .bootFailed,
        .timedOut,
        .cancelled, .deviceBusy, .deviceState,
    ]

    /// The reason of a saga that is undone; one that the contract doesn't list is ABORTED.
    public static func undone(_ name: String) -> ErrorReason {
        Self.undone.first { $0.name == name } ?? Self(name, .aborted)
    }
}
