/// Everything that the journal holds of one saga, decoded.
struct SagaHistory: Sendable, Equatable {
    var snapshot: SagaSnapshot
    /// All of them, from sequence 1 on.
    var events: [SagaEvent]

    /// Folds the rows of one saga.
    ///
    /// - Parameters:
    ///   - rows: all of the saga's rows, by ascending sequence.
    ///   - stepNames: the plan of a `(type, version)`, `nil` where this binary doesn't know it.
    /// - Throws: `StoredDataError` for anything that doesn't add up; nothing in a row is trusted.
    init(
        id: SagaID, rows: [EventRow], stepNames: (_ type: String, _ version: Int) -> [String]?
    ) throws(StoredDataError) {
        var events: [SagaEvent] = []
        self.snapshot = try SagaSnapshot(id: id, rows: rows, stepNames: stepNames) { events.append($0) }
        self.events = events
    }
}

extension SagaSnapshot {
    /// Folds the rows of one saga; see `SagaHistory`.
    ///
    /// - Parameter event: told each event, in order.
    init(
        id: SagaID, rows: [EventRow], stepNames: (_ type: String, _ version: Int) -> [String]?,
        event tell: (SagaEvent) -> Void = { _ in }
    ) throws(StoredDataError) {
        guard let first = rows.first else { throw StoredDataError(message: "\(id) has no events") }
        var snapshot: SagaSnapshot?
        var count = 0
        for row in rows {
            let packed = try JournalEventCodec.decode(row.events)
            guard row.lastSequence == count + packed.count else {
                throw StoredDataError(
                    message: "\(id): the row at \(row.lastSequence) holds \(packed.count) events after \(count)")
            }
            count += packed.count
            for event in packed {
                if snapshot == nil {
                    guard let birth = event.birth, event.type == .sagaStarted else {
                        throw StoredDataError(message: "\(id) does not begin with SAGA_STARTED")
                    }
                    guard let names = stepNames(birth.type, birth.definitionVersion) else {
                        var error = StoredDataError(
                            message: "\(id) is of \(birth.type) version \(birth.definitionVersion), unknown here")
                        error.isOfUnknownPlan = true
                        throw error
                    }
                    snapshot = SagaSnapshot(
                        id: id, birth: birth, userID: first.userID ?? "", tenantID: first.tenantID ?? "",
                        resourceID: first.resourceID ?? "", batchID: first.batchID ?? "", time: event.time,
                        stepNames: names)
                }
                if let seen = try snapshot?.apply(event, databaseOutput: row.databaseOutput) { tell(seen) }
            }
        }
        guard let snapshot else { throw StoredDataError(message: "\(id) has no events") }
        self = snapshot
    }
}
