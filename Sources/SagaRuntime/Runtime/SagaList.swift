/// Which sagas to list; all conditions hold at once. Empty means any.
public struct SagaFilter: Sendable, Equatable {
    public var statuses: [SagaStatus] = []
    public var type = ""
    public var userID = ""
    /// What the saga is about (UUID text).
    public var resourceID = ""
    public var batchID = ""
    /// What is outside of it is left out.
    public var visibility = Visibility.all

    public init(
        statuses: [SagaStatus] = [], type: String = "", userID: String = "", resourceID: String = "",
        batchID: String = "", visibility: Visibility = .all
    ) {
        self.statuses = statuses
        self.type = type
        self.userID = userID
        self.resourceID = resourceID
        self.batchID = batchID
        self.visibility = visibility
    }
}

/// Sagas of a list, newest first.
public struct SagaPage: Sendable {
    public var sagas: [SagaSnapshot]
    /// Where to go on, if there may be more; `nil`: that was all. A page may be short, even empty, and not be the last.
    public var next: SagaID?

    public init(sagas: [SagaSnapshot], next: SagaID?) {
        self.sagas = sagas
        self.next = next
    }
}

/// Pages of saga ids, newest first: a keyset over the id, which begins with the creation time.
///
/// An index gives candidates, in order; what it doesn't know of them is looked up, and those that don't match are left out.
/// A page looks at so many candidates at most, and for half of the time that its call has: where few of many match it is short, and
/// says where to go on. docs/performance.md
/// has the filters whose pages are always whole.
struct SagaList: Sendable {
    let pool: PostgresPool
    let days: SagaDays
    let statements: LeafStatements

    /// Candidates that a page looks at, and of those the ones of a user before it turns to what is rare in all.
    static let maximumCandidates = 4096
    static let maximumCandidatesOfUser = 1024
    /// Candidates of one query.
    private static let queryLimits = 128...2048

    struct IDs {
        var ids: [SagaID]
        /// Where to go on; `nil`: there are no more.
        var next: SagaID?
    }

    func page(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant?
    ) async throws(SagaRuntimeError) -> IDs {
        do throws(PostgresError) {
            return try await self.search(filter, before: before, limit: limit, until: deadline)
        } catch {
            // A leaf has gone, or the parents' list with it. Which one doesn't matter: the parents know.
            guard error.isMissingTable else { throw .database(error) }
            self.days.forget(self.days.all().map { SagaLeaf(day: $0) })
        }
        do throws(PostgresError) {
            return try await self.search(filter, before: before, limit: limit, until: deadline)
        } catch {
            throw .database(error)
        }
    }

    private func search(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> IDs {
        var page = IDs(ids: [], next: nil)
        // Beyond every id: '~' sorts after all that an id can hold.
        let start = before?.rawValue ?? "saga_~"
        var position = start
        // Candidates may be of others, whom the caller may not see.
        var isOfOthers = false
        var (sources, rare) = (Self.sources(filter), Self.rareSources(filter))
        var looked = 0
        var count = min(max(2 * limit, Self.queryLimits.lowerBound), Self.queryLimits.upperBound)
        let patience = deadline.map { self.pool.surroundings.rest(until: $0) / 2 }
        while page.ids.count < limit {
            // The rest of the time is for reading what has been found.
            if looked > 0, let deadline, let patience, self.pool.surroundings.rest(until: deadline) < patience {
                page.next = isOfOthers ? Self.place(at: position, &page.ids, after: start) : Self.id(at: position)
                return page
            }
            if looked >= (rare == nil ? Self.maximumCandidates : Self.maximumCandidatesOfUser) {
                guard let others = rare else {
                    page.next = isOfOthers ? Self.place(at: position, &page.ids, after: start) : Self.id(at: position)
                    return page
                }
                (sources, rare) = (others, nil)
                isOfOthers = true
            }
            let rest = (rare == nil ? Self.maximumCandidates : Self.maximumCandidatesOfUser) - looked
            let candidates = try await self.candidates(
                sources, filter, before: position, count: min(count, rest), until: deadline)
            page.ids += try await self.matching(candidates.found, filter, until: deadline)
            guard let next = candidates.next else {
                if page.ids.count <= limit { return page }
                break
            }
            position = next
            looked += candidates.found.count
            count = min(4 * count, Self.queryLimits.upperBound)
        }
        page.ids.removeLast(page.ids.count - limit)
        page.next = page.ids.last
        return page
    }

    /// A position as an id: the id itself, or the smallest that can be of that instant, which is nobody's.
    private static func id(at position: String) -> SagaID? {
        SagaID(position) ?? SagaID(position + "_" + String(repeating: "0", count: SagaID.randomLength))
    }

    /// A place to go on that names no saga: before the instant of the one at `position`, all of whose sagas come once more.
    ///
    /// - Parameter start: where the page began. With a whole page of one instant there is no such place.
    private static func place(at position: String, _ ids: inout [SagaID], after start: String) -> SagaID? {
        guard let last = SagaID(position) else { return Self.id(at: position) }
        let digits = String(last.milliseconds + 1)
        let instant = "saga_" + String(repeating: "0", count: max(0, 13 - digits.count)) + digits
        guard let place = Self.id(at: instant), place.rawValue < start else { return last }
        ids.removeAll { $0.milliseconds == last.milliseconds }
        return place
    }

    // MARK: Where candidates come from

    /// An index that gives ids in order.
    fileprivate enum Source: Hashable {
        case all
        case user(String)
        case tenant(String)
        case batch(String)
        case resource(String)
        case active, parked, compensated

        var isOpen: Bool { self == .active || self == .parked }
    }

    /// Together they give all that can match.
    private static func sources(_ filter: SagaFilter) -> [Source] {
        if !filter.resourceID.isEmpty { return [.resource(filter.resourceID)] }
        if !filter.batchID.isEmpty { return [.batch(filter.batchID)] }
        if !filter.userID.isEmpty { return [.user(filter.userID)] }
        switch filter.visibility {
        case .all: return Self.statusSources(filter.statuses) ?? [.all]
        case .user(let user): return [.user(user)]
        case .tenant(let tenant, let user): return [.user(user)] + (tenant.isEmpty ? [] : [.tenant(tenant)])
        }
    }

    /// What takes the place of a user's or tenant's sagas, where those are many and few of all have the statuses.
    private static func rareSources(_ filter: SagaFilter) -> [Source]? {
        guard filter.resourceID.isEmpty, filter.batchID.isEmpty, !filter.userID.isEmpty || filter.visibility != .all
        else {
            return nil
        }
        return Self.statusSources(filter.statuses)
    }

    /// Statuses that are rare have indexes of their own; `nil`: some are not.
    private static func statusSources(_ statuses: [SagaStatus]) -> [Source]? {
        var sources: [Source] = []
        for status in statuses {
            let source: Source
            switch status {
            case .running, .compensating: source = .active
            case .parked: source = .parked
            case .compensated: source = .compensated
            case .completed: return nil
            }
            if !sources.contains(source) { sources.append(source) }
        }
        return sources.isEmpty ? nil : sources
    }

    // MARK: Candidates

    /// What is known of a candidate: what its source's row says.
    fileprivate struct Candidate {
        var id: SagaID
        var state: State?
        var birth: Birth?

        struct State {
            var status: String
            var type: String
        }

        /// Of the saga's first event row.
        struct Birth {
            var userID: String
            var tenantID: String
            var resourceID: String
            var batchID: String
        }
    }

    private struct Candidates {
        /// Newest first.
        var found: [Candidate] = []
        /// All that there are from here on (exclusive) have been found; `nil`: all that there are.
        var next: String?
    }

    private func candidates(
        _ sources: [Source], _ filter: SagaFilter, before position: String, count: Int,
        until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> Candidates {
        var all = Candidates()
        for source in sources {
            let some = try await self.candidates(source, before: position, count: count, until: deadline)
            all.found += some.found
            // As far as each of them has looked.
            if let next = some.next { all.next = max(all.next ?? "", next) }
        }
        guard sources.count > 1 else { return all }
        let end = all.next ?? ""
        var newest: [Candidate] = []
        for candidate in all.found.sorted(by: { $0.id > $1.id }) where candidate.id.rawValue >= end {
            // A saga may be the user's and the tenant's.
            if newest.last?.id != candidate.id { newest.append(candidate) }
        }
        all.found = newest
        return all
    }

    private func candidates(
        _ source: Source, before position: String, count: Int, until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> Candidates {
        var candidates = Candidates()
        var groups = self.days.groups(before: position, isOpen: source.isOpen)[...]
        // Most pages end in the newest group; where there is little in each, many are asked at once.
        var atOnce = 1
        while !groups.isEmpty {
            let some = groups.prefix(atOnce)
            let results = try await self.pool.run(
                some.map { self.query(source, over: $0, before: position, count: count) }, until: deadline)
            for (group, rows) in zip(some, results) {
                for row in rows {
                    guard let id = SagaID(try row.text(0)) else { continue }
                    candidates.found.append(
                        Candidate(
                            id: id, state: source.isOfState ? try Candidate.State(row) : nil,
                            birth: source.isOfState ? nil : try Candidate.Birth(row)))
                    candidates.next = id.rawValue
                }
                // Full: the rest of this group comes next. (By rows, some of which may not be an id.)
                if rows.count >= count { return candidates }
                candidates.next = group.bound
                if candidates.found.count >= count { return candidates }
            }
            groups = groups.dropFirst(some.count)
            atOnce = min(2 * atOnce, 16)
        }
        candidates.next = nil
        return candidates
    }

    private func query(_ source: Source, over group: SagaLeafGroup, before position: String, count: Int) -> SQLQuery {
        var parameters = SQLParameters()
        parameters.append(position)
        parameters.append(Int64(count))
        let (name, condition): (String, String)
        switch source {
        case .all: (name, condition) = ("saga_list", "")
        case .active: (name, condition) = ("saga_list_active", "c.status IN ('RUNNING', 'COMPENSATING') AND ")
        case .parked: (name, condition) = ("saga_list_parked", "c.status = 'PARKED' AND ")
        case .compensated: (name, condition) = ("saga_list_compensated", "c.status = 'COMPENSATED' AND ")
        case .user(let user):
            (name, condition) = ("saga_list_user", "c.user_id = $3 AND ")
            parameters.append(user)
        case .tenant(let tenant):
            (name, condition) = ("saga_list_tenant", "c.tenant_id = $3 AND ")
            parameters.append(tenant)
        case .batch(let batch):
            (name, condition) = ("saga_list_batch", "c.batch_id = $3 AND ")
            parameters.append(batch)
        case .resource(let resource):
            (name, condition) = ("saga_list_resource", "c.resource_id = $3 AND ")
            parameters.append(uuid: resource)
        }
        let statement = self.statements.statement(name, over: group) { group in
            let rows =
                source.isOfState
                ? group.relation(\.state, "saga_id, status, saga_type")
                : group.relation(\.event, "saga_id, user_id, tenant_id, resource_id, batch_id")
            return """
                SELECT \(source.isOfState ? Candidate.State.columns : Candidate.Birth.columns) FROM \(rows) c
                WHERE \(condition)c.saga_id < $1
                ORDER BY c.saga_id DESC LIMIT $2
                """
        }
        return SQLQuery(statement, parameters)
    }

    // MARK: What matches

    private func matching(
        _ candidates: [Candidate], _ filter: SagaFilter, until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> [SagaID] {
        var candidates = candidates
        let statuses = Set(filter.statuses.map(\.name))
        func isStateRight(_ state: Candidate.State) -> Bool {
            (statuses.isEmpty || statuses.contains(state.status))
                && (filter.type.isEmpty || Visibility.isSame(state.type, filter.type))
        }
        func isBirthRight(_ birth: Candidate.Birth) -> Bool {
            (filter.userID.isEmpty || Visibility.isSame(birth.userID, filter.userID))
                && (filter.resourceID.isEmpty || birth.resourceID == filter.resourceID)
                && (filter.batchID.isEmpty || Visibility.isSame(birth.batchID, filter.batchID))
                && filter.visibility.includes(userID: birth.userID, tenantID: birth.tenantID)
        }
        candidates.removeAll { candidate in
            candidate.state.map { !isStateRight($0) } ?? false || candidate.birth.map { !isBirthRight($0) } ?? false
        }
        if !statuses.isEmpty || !filter.type.isEmpty {
            let unknown = candidates.filter { $0.state == nil }.map(\.id)
            let states = try await self.lookUp(unknown, "saga_list_states", until: deadline) { leaf in
                """
                SELECT \(Candidate.State.columns)
                FROM unnest($1::text[]) AS i(saga_id) JOIN \(leaf.state) c ON c.saga_id = i.saga_id
                """
            } read: { (row) throws(PostgresError) in
                try Candidate.State(row)
            }
            candidates.removeAll { $0.state == nil && !(states[$0.id].map(isStateRight) ?? false) }
        }
        if !filter.userID.isEmpty || !filter.resourceID.isEmpty || !filter.batchID.isEmpty || filter.visibility != .all
        {
            let unknown = candidates.filter { $0.birth == nil }.map(\.id)
            let births = try await self.lookUp(unknown, "saga_list_births", until: deadline) { leaf in
                """
                SELECT \(Candidate.Birth.columns)
                FROM unnest($1::text[]) AS i(saga_id)
                JOIN \(leaf.event) c ON c.saga_id = i.saga_id AND c.user_id IS NOT NULL
                """
            } read: { (row) throws(PostgresError) in
                try Candidate.Birth(row)
            }
            candidates.removeAll { $0.birth == nil && !(births[$0.id].map(isBirthRight) ?? false) }
        }
        return candidates.map(\.id)
    }

    private func lookUp<Value>(
        _ ids: [SagaID], _ name: String, until deadline: ContinuousClock.Instant?, _ text: (SagaLeaf) -> String,
        read: (SQLRow) throws(PostgresError) -> Value
    ) async throws(PostgresError) -> [SagaID: Value] {
        if ids.isEmpty { return [:] }
        let queries = self.days.parts(ids, of: \.self).map { part in
            var parameters = SQLParameters()
            parameters.append(array: part.elements.map(\.rawValue))
            return SQLQuery(self.statements.statement(name, on: part.leaf, text), parameters)
        }
        var values: [SagaID: Value] = [:]
        for row in try await self.pool.run(queries, until: deadline).joined() {
            if let id = SagaID(try row.text(0)) { values[id] = try read(row) }
        }
        return values
    }
}

extension SagaList.Source {
    fileprivate var isOfState: Bool {
        switch self {
        case .all, .active, .parked, .compensated: true
        case .user, .tenant, .batch, .resource: false
        }
    }
}

extension SagaList.Candidate.State {
    fileprivate static let columns = "c.saga_id, c.status::text, c.saga_type"

    fileprivate init(_ row: SQLRow) throws(PostgresError) {
        self.status = try row.text(1)
        self.type = try row.text(2)
    }
}

extension SagaList.Candidate.Birth {
    fileprivate static let columns = "c.saga_id, c.user_id, c.tenant_id, c.resource_id, c.batch_id"

    fileprivate init(_ row: SQLRow) throws(PostgresError) {
        self.userID = try row.optionalText(1) ?? ""
        self.tenantID = try row.optionalText(2) ?? ""
        self.resourceID = try row.optionalUUID(3) ?? ""
        self.batchID = try row.optionalText(4) ?? ""
    }
}
