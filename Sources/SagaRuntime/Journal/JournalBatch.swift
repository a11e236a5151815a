/// The records of one flush, laid out as the parameters of its statements.
struct JournalBatch {
    let owner: Int64
    let entries: [JournalEntry]

    private let creations: [JournalEntry]
    private let plain: [JournalEntry]
    /// Transitions with a database step that may refuse, by the step's name.
    private let decided: [(step: DatabaseStep, entries: [JournalEntry])]

    init(owner: Int64, entries: [JournalEntry]) {
        self.owner = owner
        // One order everywhere, so that two writers never wait for each other in a circle.
        self.entries = entries.sorted { $0.sagaID < $1.sagaID }
        self.creations = self.entries.filter { $0.record.birth != nil }
        let transitions = self.entries.filter { $0.record.birth == nil }
        self.plain = transitions.filter { $0.record.refused == nil }
        self.decided = Self.grouped(transitions.filter { $0.record.refused != nil })
    }

    private static func grouped(_ entries: [JournalEntry]) -> [(step: DatabaseStep, entries: [JournalEntry])] {
        var groups: [(step: DatabaseStep, entries: [JournalEntry])] = []
        for entry in entries {
            guard let step = entry.record.databaseStep else { continue }
            if let index = groups.firstIndex(where: { $0.step.name == step.name }) {
                groups[index].entries.append(entry)
            } else {
                groups.append((step, [entry]))
            }
        }
        return groups.sorted { $0.step.name < $1.step.name }
    }

    // MARK: Queries

    /// What a statement's rows are about, in the order of `queries`.
    enum Part {
        case creation, transition, decision, ride
    }

    func queries() -> [(part: Part, query: SQLQuery)] {
        var queries: [(part: Part, query: SQLQuery)] = []
        // Creations whose first step differs (or that have none) take a statement each.
        let stepless = self.creations.filter { $0.record.refused == nil }
        if !stepless.isEmpty { queries.append((.creation, self.createQuery(nil, stepless))) }
        for group in Self.grouped(self.creations.filter { $0.record.refused != nil }) {
            queries.append((.creation, self.createQuery(group.step, group.entries)))
        }
        if !self.plain.isEmpty { queries.append((.transition, self.transitionQuery(self.plain))) }
        for group in self.decided { queries.append((.decision, self.decisionQuery(group.step, group.entries))) }
        for ride in self.rides() { queries.append((.ride, ride)) }
        return queries
    }

    private func createQuery(_ step: DatabaseStep?, _ entries: [JournalEntry]) -> SQLQuery {
        let births = entries.compactMap(\.record.birth)
        var parameters = SQLParameters()
        parameters.append(self.owner)
        parameters.append(array: entries.map(\.sagaID.rawValue))
        parameters.append(array: births.map(\.type))
        parameters.append(array: entries.map { Int32(clamping: $0.record.granted.snapshot.definitionVersion) })
        parameters.append(array: entries.map(\.record.granted.snapshot.deadline))
        parameters.append(array: entries.map(\.record.granted.snapshot.createdAt))
        parameters.append(array: births.map(\.userID))
        parameters.appendUUIDs(births.map(\.resourceID))
        parameters.append(array: births.map { $0.batchID.isEmpty ? nil : $0.batchID })
        parameters.append(array: births.map { $0.requestID.isEmpty ? nil : $0.requestID })
        parameters.append(array: births.map { Int32(clamping: $0.method) })
        parameters.append(array: births.map(\.requestDigest))
        parameters.append(array: births.map { $0.secrets.isEmpty ? nil : $0.secrets })
        parameters.append(array: entries.map(\.maximumRetries))
        parameters.append(array: entries.map { entry in step?.argument(entry.view) ?? "null" })
        Self.append(entries.map(\.record.granted), to: &parameters)
        Self.append(entries.map { $0.record.refused ?? $0.record.granted }, to: &parameters)
        parameters.append(array: births.map { $0.tenantID.isEmpty ? nil : $0.tenantID })
        return SQLQuery(JournalStatements.create(step: step), parameters)
    }

    private func transitionQuery(_ entries: [JournalEntry]) -> SQLQuery {
        var parameters = SQLParameters()
        self.appendGuard(entries, to: &parameters)
        Self.append(entries.map(\.record.granted), to: &parameters)
        return SQLQuery(JournalStatements.transition, parameters)
    }

    private func decisionQuery(_ step: DatabaseStep, _ entries: [JournalEntry]) -> SQLQuery {
        var parameters = SQLParameters()
        self.appendGuard(entries, to: &parameters)
        parameters.append(array: entries.map { step.argument($0.view) })
        Self.append(entries.map(\.record.granted), to: &parameters)
        Self.append(entries.map { $0.record.refused ?? $0.record.granted }, to: &parameters)
        return SQLQuery(JournalStatements.transition(step: step), parameters)
    }

    private func appendGuard(_ entries: [JournalEntry], to parameters: inout SQLParameters) {
        parameters.append(self.owner)
        parameters.append(array: entries.map(\.sagaID.rawValue))
        parameters.append(array: entries.map { Int32(clamping: $0.record.expectedVersion) })
        parameters.append(array: entries.map(\.record.granted.snapshot.updatedAt))
        parameters.append(array: entries.map(\.retryCount))
        parameters.append(array: entries.map { Int32(clamping: $0.record.adoptions) })
    }

    private static func append(_ outcomes: [SagaRecord.Outcome], to parameters: inout SQLParameters) {
        parameters.append(array: outcomes.map(\.snapshot.status.name))
        parameters.append(array: outcomes.map { Int32(clamping: $0.snapshot.stepIndex) })
        parameters.append(array: outcomes.map(\.snapshot.currentStep))
        parameters.append(array: outcomes.map { Int32(clamping: $0.snapshot.lastSequence) })
        parameters.append(array: outcomes.map { JournalEventCodec.encode($0.events) })
        parameters.append(array: outcomes.map { $0.snapshot.failure?.message })
    }

    // MARK: What rides along

    private struct Passenger {
        var entry: JournalEntry
        var status: String
        var argument: String
    }

    private func rides() -> [SQLQuery] {
        var statements: [(statement: SQLStatement, passengers: [Passenger])] = []
        func add(_ statement: @autoclosure () -> SQLStatement, named name: String, _ passenger: Passenger) {
            if let index = statements.firstIndex(where: { $0.statement.name == name }) {
                statements[index].passengers.append(passenger)
            } else {
                statements.append((statement(), [passenger]))
            }
        }
        for entry in self.entries {
            if let step = entry.record.databaseStep, entry.record.refused == nil {
                add(
                    JournalStatements.ride(step: step), named: "journal_step_\(step.name)",
                    Passenger(
                        entry: entry, status: entry.record.granted.snapshot.status.name,
                        argument: step.argument(entry.view)))
            }
            for outcome in [entry.record.granted, entry.record.refused].compactMap({ $0 }) {
                let status = outcome.snapshot.status.name
                for sideEffect in outcome.sideEffects {
                    add(
                        JournalStatements.ride(sideEffect), named: "journal_side_\(sideEffect.name)",
                        Passenger(entry: entry, status: status, argument: sideEffect.argument(outcome.snapshot.view)))
                }
                if outcome.snapshot.status.isTerminal, outcome.snapshot.hasSecrets, entry.record.birth == nil {
                    add(
                        JournalStatements.eraseSecrets, named: JournalStatements.eraseSecrets.name,
                        Passenger(entry: entry, status: status, argument: "null"))
                }
            }
        }
        return statements.sorted { $0.statement.name < $1.statement.name }.map { statement, passengers in
            var parameters = SQLParameters()
            parameters.append(self.owner)
            parameters.append(array: passengers.map(\.entry.sagaID.rawValue))
            parameters.append(array: passengers.map { Int32(clamping: $0.entry.record.expectedVersion + 1) })
            parameters.append(array: passengers.map(\.status))
            parameters.append(array: passengers.map(\.argument))
            return SQLQuery(statement, parameters)
        }
    }

    // MARK: Results

    /// What the statements' rows say, by saga. A saga that is missing did not pass the guard.
    func outcomes(_ parts: [Part], _ results: [SQLRows]) throws(PostgresError) -> [SagaID: JournalOutcome] {
        var outcomes: [SagaID: JournalOutcome] = [:]
        for (part, rows) in zip(parts, results) where part != .ride {
            for row in rows {
                guard let id = SagaID(try row.text(0)) else { continue }
                switch part {
                case .creation:
                    outcomes[id] =
                        try row.bool(1)
                        ? .committed(granted: try row.bool(2), databaseOutput: try row.optionalText(3)) : .duplicate
                case .decision:
                    outcomes[id] = .committed(granted: try row.bool(1), databaseOutput: try row.optionalText(2))
                case .transition:
                    outcomes[id] = .committed(granted: true, databaseOutput: nil)
                case .ride:
                    break
                }
            }
        }
        return outcomes
    }
}

/// How a record's flush ended.
enum JournalOutcome: Sendable {
    case committed(granted: Bool, databaseOutput: String?)
    /// The request id was used before: the saga was not inserted.
    case duplicate
    /// Another instance owns the saga, or this instance may not insert any.
    case fenced
    /// The database won't have it.
    case rejected(StepError)
    /// Its deadline passed before its flush began. Nothing was written; the machine decides anew.
    case late
    /// Too many new sagas wait for their first flush already. Nothing was written.
    case overloaded
    /// A new saga's fate is not known, since the database can't be reached. (Told to whoever waits for it only.)
    case unknown
}

/// A record on its way, and who waits for it.
///
/// A class, so that batches are sorted and split by moving words, not records.
final class JournalEntry: Sendable {
    let record: SagaRecord
    let sagaID: SagaID
    let continuation: CheckedContinuation<JournalOutcome, Never>

    init(record: SagaRecord, continuation: CheckedContinuation<JournalOutcome, Never>) {
        self.record = record
        self.sagaID = record.granted.snapshot.id
        self.continuation = continuation
    }

    /// What SQL arguments of a database step are made from.
    var view: SagaView { self.record.granted.snapshot.view }

    /// Attempts of the current step beyond the first.
    var retryCount: Int32 {
        let snapshot = self.record.granted.snapshot
        guard snapshot.steps.indices.contains(snapshot.stepIndex) else { return 0 }
        return Int32(clamping: max(snapshot.steps[snapshot.stepIndex].attempts - 1, 0))
    }

    var maximumRetries: Int32 { 3 }
}

extension SagaSnapshot {
    var view: SagaView {
        SagaView(
            sagaID: self.id, userID: self.userID, resourceID: self.resourceID, request: self.request,
            outputs: self.outputs, createdAt: self.createdAt, updatedAt: self.updatedAt)
    }
}
