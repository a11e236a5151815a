@testable import SagaRuntime

extension Database {
    func fate(of work: ConnectionMailbox.Work, _ machine: Machine) -> RequestFate {
        var names: [String] = []
        if case .pipeline(let queries, _) = work { names = queries.map { $0.statement.name } }
        let isLost = self.crossed(machine, names)
        var fate = self.requestFate
        if isLost { fate.isLostBefore = true }
        return fate
    }

    /// What the server did, for the history.
    func note(_ who: String, _ work: ConnectionMailbox.Work, _ answer: Backend.Answer, _ fate: RequestFate) {
        let what: String
        var isDull = false
        switch work {
        case .simple(let sql): what = String(sql.prefix(60))
        case .listen(let channel, _): what = "LISTEN \(channel)"
        case .pipeline(let queries, _):
            let names = queries.map { $0.statement.name }
            isDull = names.allSatisfy { self.isDull($0) }
            if case .success(let rows) = answer {
                what = zip(names, rows).map { "\($0) \($1.count)" }.joined(separator: ", ")
                // A sweep that takes something up is worth a line.
                if names.first?.hasSuffix("saga_claim") == true, rows[0].count > 0 { isDull = false }
            } else {
                what = names.joined(separator: ", ")
            }
        }
        var end = ""
        if case .failure(let error) = answer {
            isDull = false
            end = " -> \(error.sqlstate ?? "") \(error.message)"
        }
        if fate.isLostAfter { end += " (answer lost)" }
        self.write("\(what)\(end)", who, isDull: isDull && !fate.isLostAfter)
    }

    /// A statement on a day's leaf has the day before its name; one without a name asks which days are over.
    private func isDull(_ name: String) -> Bool {
        if let isDull = self.dullNames[name] { return isDull }
        let isDull = name.isEmpty || Self.dull.contains { name.hasSuffix($0) }
        self.dullNames[name] = isDull
        return isDull
    }

    private static let dull: Set<String> = [
        "instance_renew", "instance_others", "saga_claim", "saga_claimable", "instance_features", "saga_count_parked",
        "saga_quarantine_count", "saga_clock", "saga_partition_exists",
        "instance_backend", "saga_newest", "saga_rows", "saga_notify", "saga_waiting_due", "saga_waiting_dependencies",
        "saga_waiting_outdated", "saga_waiting_for", "saga_waiting_count", "saga_commands_open", "sites_publish",
        "sites_look", "sites_unserved",
    ]
}
