/// One durable fact about a saga, as the journal packs it: what cannot be told from the events before it.
///
/// `SagaEvent` is the public view of it; `SagaSnapshot` is the fold over all of them.
struct JournalEvent: Sendable, Equatable {
    struct Flags: OptionSet, Sendable, Equatable {
        var rawValue: UInt8
        /// STEP_FAILED, STEP_RETRYING: whether the effect exists is not known. STEP_SUCCEEDED: an earlier call may still take
        /// effect.
        static let outcomeUnknown = Flags(rawValue: 1)
        /// STEP_RETRYING: this attempt definitely did nothing, and no further one starts before a new STEP_STARTED or
        /// STEP_COMPENSATING.
        static let withdrawn = Flags(rawValue: 2)
        /// COMMAND_RECEIVED: it changes nothing.
        static let noEffect = Flags(rawValue: 4)
    }

    var type: SagaEventType
    var time: Timestamp
    /// `nil` for events of the whole saga.
    var step: Int?
    var attempt = 0
    var generation = 0
    var flags: Flags = []
    var cause: FailureCause?
    var reason = ""
    var message = ""
    /// STEP_RETRYING: of the next attempt. STEP_PROGRESS: when the job is asked about next.
    var retryAt: Timestamp?
    /// STEP_SUCCEEDED of a remote step, STEP_PROGRESS. (A database step's output stands in its row's own column.)
    var output: String?
    /// SAGA_STARTED only.
    var birth: SagaBirth?
}

/// What is written once about a saga, with its first event. Whose it is and what it is about (user, resource, batch)
/// stands beside it in searchable columns.
struct SagaBirth: Sendable, Equatable {
    var type: String
    var definitionVersion: Int
    var deadline: Timestamp
    var requestID: String
    var request: [UInt8]
    var hasSecrets: Bool
}

/// A row of `saga_event`: the events of one flush.
struct EventRow: Sendable, Equatable {
    /// The *last* sequence that the row holds.
    var lastSequence: Int
    /// First row of a saga only.
    var userID: String?
    var tenantID: String?
    var resourceID: String?
    var batchID: String?
    var events: [UInt8]
    var databaseOutput: String?
    /// Nobody drives the saga (`SagaQuarantine`); every row of it says so.
    var isQuarantined = false
    /// What the saga waits for, asleep; every row of it says so.
    var wait: SagaWait?
}
