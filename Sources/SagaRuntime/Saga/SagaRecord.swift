/// What one flush writes for one saga: the only way a saga changes.
struct SagaRecord: Sendable {
    /// What is written if this comes to pass: the events, and the state after them.
    ///
    /// A class, since a flush takes it up a dozen times and copies of it are wide.
    final class Outcome: Sendable {
        let events: [JournalEvent]
        /// The state after the events. (The output of a database step in this record is still missing from it.)
        let snapshot: SagaSnapshot
        let sideEffects: [SideEffect]
        /// The commands that it consumes.
        let answers: [SagaCommand.Answer]

        init(
            events: [JournalEvent], snapshot: SagaSnapshot, sideEffects: [SideEffect],
            answers: [SagaCommand.Answer] = []
        ) {
            self.events = events
            self.snapshot = snapshot
            self.sideEffects = sideEffects
            self.answers = answers
        }
    }

    /// The version of the row that this record replaces; 0 inserts the saga.
    var expectedVersion: Int
    /// Runs inside the flush; it decides between the two outcomes.
    var databaseStep: DatabaseStep?
    /// Written if there is no database step, or it granted.
    var granted: Outcome
    /// Written if the database step refused.
    var refused: Outcome?
    /// New sagas only.
    var birth: NewSaga?
    /// The row's count of adoptions without progress after this flush.
    var adoptions = 0
    /// For the metrics and the fault points: what this flush is about, e.g. `create`, `forward`, `undo`, `end`.
    var kind: Kind
    /// The saga's deadline, if this record goes forward: a flush that starts later (the database was away, say) leaves
    /// it out, and its saga is asked again. `nil`: it may be written at any time.
    var notAfter: Timestamp?

    /// How many commands the saga was given, as its driver knows: a record that ends, parks or puts to sleep is written only if
    /// that is all of them. `nil`: it is written whatever has come meanwhile.
    var commandsSeen: Int?
    /// Written instead of events: the saga waits, and belongs to nobody meanwhile.
    var sleep: SagaSleep?

    /// What was written of it.
    ///
    /// - Parameter granted: what the database step said, if there is one.
    func written(granted: Bool) -> Outcome { granted ? self.granted : (self.refused ?? self.granted) }

    enum Kind: String, Sendable, CaseIterable {
        case create, forward, intent, retry, undo, end, park, adopt, progress, command, sleep, wake
    }
}

/// What a caller asks for.
public struct NewSaga: Sendable {
    public var id: SagaID
    public var type: String
    public var userID: String
    /// Whom the user belongs to; empty: nobody.
    public var tenantID: String
    /// What the saga is about: the device's id (UUID text).
    public var resourceID: String
    /// Empty: not idempotent.
    public var requestID: String
    /// 1 CreateDevice, 2 DeleteDevice, 3 StartDevice, 4 StopDevice, 5 RestartDevice.
    public var method: Int
    /// HMAC of the normalised request; the same request has the same digest.
    public var requestDigest: [UInt8]
    /// Empty: none.
    public var batchID: String
    /// The definition's own encoding.
    public var request: [UInt8]
    /// Empty: none. Erased when the saga ends.
    public var secrets: [UInt8]
    public var timeout: Duration
    /// Where its calls may go, the best first (`DatabaseStep.choosesSite`); empty: the definition knows no sites.
    public var sites: [String] = []
    /// Whom its first call most likely goes to: a new saga gets its permit there before its first flush.
    public var firstDependency: String?

    public init(
        id: SagaID, type: String, userID: String, tenantID: String = "", resourceID: String, requestID: String,
        method: Int, requestDigest: [UInt8], batchID: String, request: [UInt8], secrets: [UInt8], timeout: Duration
    ) {
        self.id = id
        self.type = type
        self.userID = userID
        self.tenantID = tenantID
        self.resourceID = resourceID
        self.requestID = requestID
        self.method = method
        self.requestDigest = requestDigest
        self.batchID = batchID
        self.request = request
        self.secrets = secrets
        self.timeout = timeout
    }
}
