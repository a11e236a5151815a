import Logging

/// One writer of the journal: a connection, and what becomes of a flush that fails on it (docs/architecture.md).
struct JournalWriter {
    /// How long nothing gets through before callers and health are told. A backend that is ended, and replaced at once, is
    /// no outage.
    private static let stuckAfter: Duration = .milliseconds(400)
    private static let longestPause: Duration = .milliseconds(500)
    /// From this pause on a new connection is tried each time: this one may lead to what is not the primary any more.
    private static let reconnectFrom: Duration = .milliseconds(200)
    /// How long a saga waits for its day's partition: the keeper looks once a minute.
    private static let dayPatience: Duration = .seconds(90)

    private typealias Part = FlushPart<JournalEntry>

    /// What keeps everything from being written.
    private struct Outage {
        var since: BootTime
        var failures = 0
        var isTold = false
    }

    private let journal: Journal
    private let number: Int
    /// Of the slow lane: what it takes waits for others' locks.
    private let isSlow: Bool
    private var connection: PostgresConnection?
    /// The backend of a lost connection, which may still be running its last flush.
    private var lostBackend: (pid: Int32, start: Timestamp)?
    private var outage: Outage?
    /// What could not be written when the outage began. Once all of it is withdrawn it is still what shows whether the outage is
    /// over: a disk that is full takes an empty flush.
    private var specimen: Part?
    /// Since when sagas wait for their day's partition.
    private var dayMissing: [SagaID: BootTime] = [:]

    init(_ journal: Journal, number: Int, isSlow: Bool) {
        self.journal = journal
        self.number = number
        self.isSlow = isSlow
    }

    private var logger: Logger { self.journal.logger }
    private var surroundings: Surroundings { self.journal.surroundings }

    mutating func run() async {
        while !Task.isCancelled {
            if !self.isSlow || self.outage != nil {
                guard await self.connect() else { continue }
                // Nothing is left to be written, so a rehearsal tells when it is over.
                if self.outage != nil, let error = await self.failureOfRehearsal() {
                    await self.wait(for: error)
                    continue
                }
                self.outageIsOver()
            }
            let entries = await self.journal.next(isSlow: self.isSlow)
            if entries.isEmpty { continue }
            let started = self.surroundings.now
            await self.flush(self.isSlow ? Part(apart: entries) : Part(entries))
            if self.isSlow {
                // Whoever still waits shall not keep PostgreSQL busy.
                try? await self.surroundings.sleep(for: .milliseconds(50))
                if self.journal.apart == 0 { await self.disconnect() }
            } else {
                self.journal.observer.flushed(records: entries.count, duration: self.surroundings.now - started)
            }
        }
        await self.disconnect()
    }

    // MARK: Flushing

    /// Brings every record to an end, or into the slow lane.
    private mutating func flush(_ whole: Part) async {
        // The one that comes next is the last.
        var parts = [whole]
        while var part = parts.popLast() {
            guard !Task.isCancelled else {
                // Nobody may act on these any more; the rows tell whoever takes the sagas up.
                for entry in (parts + [part]).flatMap(\.elements) { self.journal.end(entry, .fenced) }
                return
            }
            guard await self.connect() else {
                parts.append(part)
                self.letGo(&parts)
                continue
            }
            if part.isInDoubt {
                await self.settleLost(&part)
                if !part.elements.isEmpty { parts.append(part) }
                continue
            }
            part.elements = self.journal.current(part.elements)
            if part.elements.isEmpty { continue }
            do throws(PostgresError) {
                part.elements = try await self.send(part)
                self.outageIsOver()
                if part.elements.isEmpty { continue }
                // No row updated is not proof of fencing: an earlier try of this flush may have been the one.
                await self.settleRefused(&part)
                if !part.elements.isEmpty { parts.append(part) }
            } catch {
                await self.recover(part, &parts, from: error)
            }
        }
    }

    /// Sends a flush, and ends what it tells the fate of.
    ///
    /// - Returns: what did not pass the guard.
    private mutating func send(_ part: Part) async throws(PostgresError) -> [JournalEntry] {
        guard let connection = self.connection else { throw PostgresError(.closed, "no connection") }
        let batch = self.batch(part)
        let queries = batch.queries()
        for entry in batch.entries { FaultPoint.hit("flush.\(entry.record.kind.rawValue).before") }
        self.journal.mark(batch.entries, isSent: true)
        let outcomes: [SagaID: JournalOutcome]
        do throws(PostgresError) {
            let limit = Self.limit(part.lockTimeout)
            let results = try await connection.transaction(limit + queries.map(\.query))
            for entry in batch.entries { FaultPoint.hit("flush.\(entry.record.kind.rawValue).after") }
            outcomes = try batch.outcomes(queries.map(\.part), Array(results.dropFirst(limit.count)))
        } catch {
            if !error.leavesDoubt { self.journal.mark(batch.entries, isSent: false) }
            throw error
        }
        return batch.entries.filter { entry in
            guard let outcome = outcomes[entry.sagaID] else { return true }
            self.end(entry, outcome)
            return false
        }
    }

    private func batch(_ part: Part) -> JournalBatch {
        JournalBatch(
            owner: self.journal.owner, entries: part.elements, statements: self.journal.statements,
            days: self.journal.days)
    }

    /// What a flush begins with if it waits for locks otherwise than its session does.
    private static func limit(_ lockTimeout: Duration) -> [SQLQuery] {
        lockTimeout == Part.lockTimeout ? [] : [JournalProbe.setLockTimeout(lockTimeout)]
    }

    private mutating func end(_ entry: JournalEntry, _ outcome: JournalOutcome) {
        self.dayMissing[entry.sagaID] = nil
        self.journal.end(entry, outcome)
    }

    // MARK: What a failure leads to

    /// Decides by what the error is about what becomes of a part whose flush failed.
    private mutating func recover(_ failed: Part, _ parts: inout [Part], from error: PostgresError) async {
        var part = failed
        if error.isMissingTable {
            // A leaf has gone since the list was made. The parents know better, and refuse what has no place any more.
            let leaves = self.batch(part).leaves
            if !leaves.isEmpty {
                self.journal.days.forget(leaves)
                parts.append(part)
                return
            }
        }
        if error.leavesDoubt {
            part.isInDoubt = true
            await self.loseConnection()
        }
        var cause = error
        let scope: ErrorScope = Mutant.refusalsAreAboutRecords.isActive && error.code == .server ? .record : error.scope
        switch part.failed(scope) {
        case .again:
            parts.append(part)
            try? await self.surroundings.sleep(for: .milliseconds(self.surroundings.integer(in: 1...10)))
            return
        case .pause:
            if !error.leavesDoubt { self.specimen = part }
        case .compare:
            let isBlind = Mutant.refusalsAreAboutRecords.isActive && error.code == .server
            guard !isBlind, let failure = await self.failureOfProbe(self.batch(part).emptyQueries()) else {
                self.separate(part, &parts, error, scope)
                return
            }
            cause = failure
        }
        parts.append(part)
        await self.wait(for: cause)
        self.letGo(&parts)
    }

    private mutating func separate(
        _ failed: Part, _ parts: inout [Part], _ error: PostgresError, _ scope: ErrorScope
    ) {
        var part = failed
        switch part.separate(scope) {
        case .again:
            parts.append(part)
        case .parts(let smaller):
            parts += smaller.reversed()
        case .aside:
            for entry in part.elements { self.setApart(entry, error) }
        case .refuse:
            for entry in part.elements { self.refuse(entry, error) }
        }
    }

    /// One record that can't be written now, whatever the others can.
    private mutating func setApart(_ entry: JournalEntry, _ error: PostgresError) {
        switch error.scope {
        case .conflict where entry.record.birth != nil:
            self.end(entry, .withdrawn)
        case .day:
            // A new saga can as well begin elsewhere, or later. What is under way waits for the keeper of partitions.
            let since = self.dayMissing[entry.sagaID] ?? self.surroundings.now
            guard entry.record.birth == nil, self.surroundings.now - since < Self.dayPatience else {
                return self.refuse(entry, error)
            }
            if self.isSlow { self.dayMissing[entry.sagaID] = since }
            self.journal.setApart(entry)
        default:
            self.journal.setApart(entry)
        }
    }

    private mutating func refuse(_ entry: JournalEntry, _ error: PostgresError) {
        self.logger.log(
            .error, cause: "journal.refused \(error.sqlstate ?? "")", "[SAGA] the database refuses a record",
            metadata: [
                "saga_id": "\(entry.sagaID)", "sqlstate": "\(error.sqlstate ?? "none")", "error": "\(error)",
            ])
        self.end(
            entry,
            .rejected(
                StepError(
                    .invalid, reason: "JOURNAL_REJECTED",
                    message: "the database refused this step's record (SQLSTATE \(error.sqlstate ?? "none"))")))
    }

    /// Why the database doesn't even take an empty flush; `nil`: it does.
    ///
    /// The statements are those of the flush that failed, so that a right or a table that only they need is missed too.
    /// The same, of what could not be written before: all of it is done, and taken back.
    private mutating func failureOfRehearsal() async -> PostgresError? {
        guard let specimen = self.specimen else {
            return await self.failureOfProbe([SQLQuery(JournalProbe.statement)])
        }
        let batch = self.batch(specimen)
        guard let error = await self.failureOfProbe(batch.queries().map(\.query) + [SQLQuery(JournalProbe.takesBack)])
        else { return nil }
        if error.sqlstate == JournalProbe.isTakenBack { return nil }
        if error.scope == .outage { return error }
        // About its sagas, perhaps, which others have gone on with: it shows no more than an empty flush.
        return await self.failureOfProbe(batch.emptyQueries())
    }

    private mutating func failureOfProbe(_ queries: [SQLQuery]) async -> PostgresError? {
        guard let connection = self.connection else { return PostgresError(.closed, "no connection") }
        do throws(PostgresError) {
            _ = try await connection.transaction(
                Self.limit(Part.shortLockTimeout) + [SQLQuery(JournalProbe.transactionID)] + queries)
            return nil
        } catch {
            if !connection.isOpen { await self.disconnect() }
            return error
        }
    }

    // MARK: Outages

    /// The database takes nothing: waits a little, longer each time, and tells who has to know.
    private mutating func wait(for error: PostgresError) async {
        self.logger.log(
            .warning, cause: "journal.outage \(error.code) \(error.sqlstate ?? "")",
            "[SAGA] the journal can't write: \(error)"
        )
        var outage = self.outage ?? Outage(since: self.surroundings.now)
        let pause = min(.milliseconds(25) * (1 << min(outage.failures, 10)), Self.longestPause)
        outage.failures += 1
        // The slow lane may lack no more than its connection, which no other needs.
        if !self.isSlow, self.surroundings.now + pause - outage.since > Self.stuckAfter { outage.isTold = true }
        self.outage = outage
        if outage.isTold { self.journal.setStuck(true, writer: self.number) }
        if pause >= Self.reconnectFrom { await self.disconnect() }
        try? await self.surroundings.sleep(for: pause)
    }

    private mutating func outageIsOver() {
        guard let outage = self.outage else { return }
        self.outage = nil
        self.specimen = nil
        guard outage.isTold else { return }
        self.journal.setStuck(false, writer: self.number)
        self.logger.notice("[SAGA] the journal writes again after \(self.surroundings.now - outage.since)")
    }

    /// What need not wait for the end of an outage: what is too late is decided anew, and new sagas that have certainly not
    /// been written never are, once their callers are told that the database is away.
    private mutating func letGo(_ parts: inout [Part]) {
        let isTold = self.outage?.isTold == true || self.journal.isStuck
        for index in parts.indices where !parts[index].isInDoubt {
            parts[index].elements = self.journal.current(parts[index].elements)
            guard isTold else { continue }
            parts[index].elements.removeAll { entry in
                guard entry.record.birth != nil, !Mutant.queuedCreationsStay.isActive else { return false }
                self.journal.end(entry, .withdrawn)
                return true
            }
        }
        parts.removeAll { $0.elements.isEmpty }
    }

    // MARK: The connection

    private mutating func connect() async -> Bool {
        if self.connection != nil { return true }
        do throws(PostgresError) {
            let connection = try await PostgresConnection.connect(self.journal.configuration.connection)
            do {
                try await self.journal.registerBackends(self.number, connection)
            } catch {
                await connection.close()
                throw error as? PostgresError ?? PostgresError(.connectFailed, "\(error)")
            }
            self.connection = connection
            return true
        } catch {
            await self.wait(for: error)
            return false
        }
    }

    private mutating func disconnect() async {
        await self.connection?.close()
        self.connection = nil
    }

    private mutating func loseConnection() async {
        guard let connection = self.connection else { return }
        self.lostBackend = (connection.backendPID, connection.backendStart)
        await self.disconnect()
    }

    // MARK: Flushes whose fate is open

    /// After a lost connection: first the old backend must be gone, then the rows say what was committed. `part` then holds
    /// what is to be flushed again, or is still in doubt.
    private mutating func settleLost(_ part: inout Part) async {
        guard let connection = self.connection else { return }
        do {
            if let lost = self.lostBackend {
                while !Task.isCancelled {
                    var parameters = SQLParameters()
                    parameters.append(lost.pid)
                    parameters.append(lost.start)
                    let rows = try await connection.run([SQLQuery(JournalStatements.terminateBackend, parameters)])
                    if try rows[0].single().int64(0) == 0 { break }
                    try? await self.surroundings.sleep(for: .milliseconds(10))
                }
                self.lostBackend = nil
            }
        } catch {
            // The backend that may hold the flush stays the one from before.
            await self.disconnect()
            await self.wait(for: error)
            return
        }
        await self.settleRefused(&part, maybeUncommitted: true)
    }

    /// Reads (owner, version) of sagas whose record did not pass the guard, or whose flush was lost. `part` then holds what is
    /// to be flushed again, or is in doubt.
    ///
    /// - Parameter maybeUncommitted: a flush was lost; an unchanged row means that it is to be written again.
    private mutating func settleRefused(_ part: inout Part, maybeUncommitted: Bool = false) async {
        do throws(PostgresError) {
            let found = try await self.reread(part.elements)
            var again: [JournalEntry] = []
            for entry in part.elements {
                guard let row = found[entry.sagaID] else {
                    // A creation that never happened: lost, or refused because this instance is fenced.
                    if maybeUncommitted, entry.record.birth != nil {
                        again.append(entry)
                    } else {
                        self.end(entry, .fenced)
                    }
                    continue
                }
                let isMine =
                    row.owner == self.journal.owner || row.owner == SagaOwner.asleep && entry.record.sleep != nil
                if isMine, row.version == entry.record.expectedVersion + 1 {
                    let isGranted = row.status == entry.record.granted.snapshot.status.name
                    self.end(entry, .committed(granted: isGranted, databaseOutput: row.output))
                } else if row.owner == self.journal.owner, row.version == entry.record.expectedVersion,
                    entry.record.commandsSeen.map({ $0 != row.commands }) == true
                {
                    self.end(entry, .commanded)
                } else if row.owner == self.journal.owner, row.version == entry.record.expectedVersion,
                    maybeUncommitted
                {
                    again.append(entry)
                } else {
                    self.end(entry, .fenced)
                }
            }
            self.journal.mark(again, isSent: false)
            part.elements = again
            part.isInDoubt = false
        } catch {
            part.isInDoubt = true
            await self.loseConnection()
            await self.wait(for: error)
        }
    }

    private struct Row {
        var owner: Int64
        var version: Int
        var status: String
        var output: String?
        var commands: Int
    }

    private func reread(_ entries: [JournalEntry]) async throws(PostgresError) -> [SagaID: Row] {
        guard let connection = self.connection else { throw PostgresError(.closed, "no connection") }
        let journal = self.journal
        let rows = try await journal.days.reading(entries, of: \.sagaID) { parts throws(PostgresError) in
            try await connection.run(
                parts.map { part in
                    var parameters = SQLParameters()
                    parameters.append(array: part.elements.map(\.sagaID.rawValue))
                    return SQLQuery(journal.statements.reread(on: part.leaf), parameters)
                })
        }
        var found: [SagaID: Row] = [:]
        for row in rows.joined() {
            guard let id = SagaID(try row.text(0)) else { continue }
            found[id] = Row(
                owner: try row.int64(1), version: Int(try row.int32(2)), status: try row.text(3),
                output: try row.optionalText(4), commands: Int(try row.int32(5)))
        }
        return found
    }
}
