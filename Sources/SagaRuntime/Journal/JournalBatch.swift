/// The records of one flush, laid out as its statements and their parameters.
struct JournalBatch {
    let owner: Int64
    let entries: [JournalEntry]

    private let statements: JournalStatements
    /// By their days' leaves.
    private let parts: [SagaDays.Part<JournalEntry>]

    init(owner: Int64, entries: [JournalEntry], statements: JournalStatements, days: SagaDays) {
        self.owner = owner
        self.statements = statements
        // One order everywhere, so that two writers never wait for each other in a circle.
        self.entries = entries.sorted { $0.sagaID < $1.sagaID }
        self.parts = days.parts(self.entries, of: \.sagaID)
    }

    /// What its statements address, beside the parents.
    var leaves: [SagaLeaf] { self.parts.map(\.leaf).filter { !$0.isParent } }

    /// Entries by the database step of their records, in one order everywhere.
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
        case creation, transition, decision, ride, sleep
    }

    func queries() -> [(part: Part, query: SQLQuery)] { self.queries(isEmpty: false) }

    /// The same statements for no saga at all: what fails them is no saga's fault.
    func emptyQueries() -> [SQLQuery] { self.queries(isEmpty: true).map(\.query) }

    private func queries(isEmpty: Bool) -> [(part: Part, query: SQLQuery)] {
        var queries: [(part: Part, query: SQLQuery)] = []
        let creations = self.entries.filter { $0.record.birth != nil }
        // Creations whose first step differs (or that have none) take a statement each.
        let stepless = creations.filter { $0.record.refused == nil }
        if !stepless.isEmpty { queries.append((.creation, self.creation(nil, isEmpty ? [] : stepless))) }
        for group in Self.grouped(creations.filter { $0.record.refused != nil }) {
            queries.append((.creation, self.creation(group.step, isEmpty ? [] : group.entries)))
        }
        for part in self.parts {
            let plain = part.elements.filter {
                $0.record.birth == nil && $0.record.refused == nil && $0.record.sleep == nil
            }
            if !plain.isEmpty {
                queries.append((.transition, self.transition(isEmpty ? [] : plain, on: part.leaf)))
            }
        }
        for part in self.parts {
            for group in Self.grouped(part.elements.filter { $0.record.birth == nil && $0.record.refused != nil }) {
                queries.append((.decision, self.decision(group.step, isEmpty ? [] : group.entries, on: part.leaf)))
            }
        }
        for ride in self.rides(isEmpty: isEmpty) { queries.append((.ride, ride)) }
        // Last: no ride is for a saga that belongs to nobody.
        for part in self.parts {
            let sleepers = part.elements.filter { $0.record.sleep != nil }
            if !sleepers.isEmpty { queries.append((.sleep, self.sleep(isEmpty ? [] : sleepers, on: part.leaf))) }
        }
        return queries
    }

    private func creation(_ step: DatabaseStep?, _ entries: [JournalEntry]) -> SQLQuery {
        let rows = entries.compactMap { entry in
            entry.record.birth.map {
                // Each with its own argument: definitions share statements, not arguments.
                JournalInput.Creation(
                    entry: entry, saga: $0,
                    argument: step == nil ? "null" : entry.record.databaseStep?.argument(entry.view(of: $0)) ?? "null")
            }
        }
        return SQLQuery(
            self.statements.create(step: step), JournalInput.creation.parameters(owner: self.owner, rows))
    }

    private func transition(_ entries: [JournalEntry], on leaf: SagaLeaf) -> SQLQuery {
        SQLQuery(
            self.statements.transition(on: leaf), JournalInput.transition.parameters(owner: self.owner, entries))
    }

    private func sleep(_ entries: [JournalEntry], on leaf: SagaLeaf) -> SQLQuery {
        SQLQuery(self.statements.sleep(on: leaf), JournalInput.sleep.parameters(owner: self.owner, entries))
    }

    private func decision(_ step: DatabaseStep, _ entries: [JournalEntry], on leaf: SagaLeaf) -> SQLQuery {
        // Each with its own argument: a claim's holds what its saga's call has found.
        let rows = entries.map {
            JournalInput.Decision(entry: $0, argument: ($0.record.databaseStep ?? step).argument($0.view))
        }
        return SQLQuery(
            self.statements.decision(step: step, on: leaf), JournalInput.decision.parameters(owner: self.owner, rows))
    }

    // MARK: What rides along

    private func rides(isEmpty: Bool) -> [SQLQuery] {
        // By statement first: what the definitions own is touched in one order, whatever day its sagas are of.
        self.parts.flatMap { self.rides($0.elements, on: $0.leaf) }
            .sorted { $0.name < $1.name }
            .map { ride in
                let passengers = isEmpty ? [] : ride.passengers
                return SQLQuery(ride.statement, JournalInput.ride.parameters(owner: self.owner, passengers))
            }
    }

    private struct Ride {
        /// Of the step or side effect.
        var name: String
        var statement: SQLStatement
        var passengers: [JournalInput.Passenger]
    }

    private func rides(_ entries: [JournalEntry], on leaf: SagaLeaf) -> [Ride] {
        var rides: [Ride] = []
        func add(_ name: String, _ passenger: JournalInput.Passenger, _ statement: () -> SQLStatement) {
            if let index = rides.firstIndex(where: { $0.name == name }) {
                rides[index].passengers.append(passenger)
            } else {
                rides.append(Ride(name: name, statement: statement(), passengers: [passenger]))
            }
        }
        for entry in entries {
            if let step = entry.record.databaseStep, entry.record.refused == nil {
                let status = entry.record.granted.snapshot.status.name
                add(
                    "step_\(step.name)",
                    JournalInput.Passenger(entry: entry, status: status, argument: step.argument(entry.view))
                ) { self.statements.ride(step: step, on: leaf) }
            }
            for outcome in [entry.record.granted, entry.record.refused].compactMap({ $0 }) {
                let status = outcome.snapshot.status.name
                for effect in outcome.sideEffects {
                    add(
                        "side_\(effect.name)",
                        JournalInput.Passenger(
                            entry: entry, status: status, argument: effect.argument(outcome.snapshot.view))
                    ) { self.statements.ride(effect, on: leaf) }
                }
                if outcome.snapshot.status.isTerminal, outcome.snapshot.hasSecrets, entry.record.birth == nil {
                    add(
                        "erase_secrets", JournalInput.Passenger(entry: entry, status: status, argument: "null")
                    ) { self.statements.eraseSecrets(on: leaf) }
                }
            }
        }
        return rides
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
                case .transition, .sleep:
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
    /// It was given commands that its driver does not know. Nothing was written; the machine decides anew.
    case commanded
    /// Its deadline passed before its flush began. Nothing was written; the machine decides anew.
    case late
    /// Too many new sagas wait for their first flush already. Nothing was written.
    case overloaded
    /// A new saga was not written, and never will be: the database takes nothing, or nobody waits for it any more.
    case withdrawn
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

    /// The same of a saga that is inserted.
    func view(of new: NewSaga) -> SagaView {
        var view = self.view
        view.sites = new.sites
        return view
    }

    /// Attempts of the current step beyond the first.
    var retryCount: Int {
        let snapshot = self.record.granted.snapshot
        guard snapshot.steps.indices.contains(snapshot.stepIndex) else { return 0 }
        return max(snapshot.steps[snapshot.stepIndex].attempts - 1, 0)
    }

    var maximumRetries: Int { 3 }
}

extension SagaSnapshot {
    var view: SagaView {
        var view = SagaView(
            sagaID: self.id, userID: self.userID, resourceID: self.resourceID, request: self.request,
            outputs: self.outputs, createdAt: self.createdAt, updatedAt: self.updatedAt)
        view.batchID = self.batchID
        view.failure = self.failure
        for step in self.steps where step.isDone && step.doubt == .sent { view.doubtfulSteps.insert(step.name) }
        if self.isTurnedBack {
            // What somebody has undone by hand is skipped.
            for step in self.steps where step.status == .compensated || step.status == .skipped {
                view.undoneSteps.insert(step.name)
            }
        }
        return view
    }
}
