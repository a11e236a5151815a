/// Which sagas to list; all conditions hold at once. Empty means any.
public struct SagaFilter: Sendable, Equatable {
    public var statuses: [SagaStatus] = []
    public var type = ""
    public var userID = ""
    /// What the saga is about (UUID text).
    public var resourceID = ""
    public var batchID = ""
    /// Each user's own: others may have sagas of the same.
    public var requestID = ""
    /// What is outside of it is left out.
    public var visibility = Visibility.all

    public init(
        statuses: [SagaStatus] = [], type: String = "", userID: String = "", resourceID: String = "",
        batchID: String = "", requestID: String = "", visibility: Visibility = .all
    ) {
        self.statuses = statuses
        self.type = type
        self.userID = userID
        self.resourceID = resourceID
        self.batchID = batchID
        self.requestID = requestID
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

/// The ids of sagas of a list, newest first.
public struct SagaIDPage: Sendable {
    public var ids: [SagaID]
    /// As `SagaPage.next`.
    public var next: SagaID?
}

/// Pages of saga ids, newest first: a keyset over the id, which begins with the creation time.
///
/// An index gives candidates, in order; what its rows don't say of them is looked up in the same statement, and those that don't
/// match are left out.
/// A page looks at so many candidates at most, and for half of the time that its call has: where few of many match it is short, and
/// says where to go on. docs/performance.md
/// has the filters whose pages are always whole.
struct SagaList: Sendable {
    let pool: PostgresPool
    let days: SagaDays
    let statements: LeafStatements

    /// Candidates that a page looks at, and of those the ones of its first sources before it turns to the others.
    static let maximumCandidates = 4096
    static let maximumCandidatesOfFirst = 1024
    /// Candidates of one query.
    private static let queryLimits = 128...2048
    /// '~' sorts after all that an id can hold.
    private static let beyondAll = "saga_~"

    func page(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant?
    ) async throws(SagaRuntimeError) -> SagaIDPage {
        do throws(PostgresError) {
            if !filter.requestID.isEmpty {
                return try await self.ofRequest(filter, before: before, limit: limit, until: deadline)
            }
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
    ) async throws(PostgresError) -> SagaIDPage {
        var page = SagaIDPage(ids: [], next: nil)
        let start = before?.rawValue ?? Self.beyondAll
        var position = start
        var course = Self.course(filter)
        var sources = course.removeFirst()
        // Candidates may be of others, whom the caller may not see.
        var isOfOthers: Bool { filter.visibility != .all && sources.allSatisfy(\.isOfState) }
        var looked = 0
        var count = min(max(2 * limit, Self.queryLimits.lowerBound), Self.queryLimits.upperBound)
        let patience = deadline.map { self.pool.surroundings.rest(until: $0) / 2 }
        while page.ids.count < limit {
            // The rest of the time is for reading what has been found.
            if looked > 0, let deadline, let patience, self.pool.surroundings.rest(until: deadline) < patience {
                page.next = isOfOthers ? Self.place(at: position, &page.ids, after: start) : Self.id(at: position)
                return page
            }
            if looked >= (course.isEmpty ? Self.maximumCandidates : Self.maximumCandidatesOfFirst) {
                guard !course.isEmpty else {
                    page.next = isOfOthers ? Self.place(at: position, &page.ids, after: start) : Self.id(at: position)
                    return page
                }
                sources = course.removeFirst()
            }
            let rest = (course.isEmpty ? Self.maximumCandidates : Self.maximumCandidatesOfFirst) - looked
            let candidates = try await self.candidates(
                sources, filter, before: position, count: min(count, rest), until: deadline)
            page.ids += candidates.found.filter { filter.matches($0) }.map(\.id)
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

    // MARK: Of one request id

    /// Few have the same: what else is asked for is looked up through the parents.
    private static let ofRequest = SQLStatement(
        "saga_list_request",
        """
        SELECT c.saga_id, \(Candidate.stateColumns.joined(separator: ", ")), \(Candidate.birthColumns.joined(separator: ", "))
        FROM (
            SELECT r.saga_id FROM saga_request r WHERE r.request_id = $3 AND r.saga_id < $1 ORDER BY r.saga_id DESC LIMIT $2) c
        LEFT JOIN LATERAL (SELECT * FROM saga_state s WHERE s.saga_id = c.saga_id OFFSET 0) s ON true
        LEFT JOIN LATERAL (SELECT * FROM saga_event e WHERE e.saga_id = c.saga_id ORDER BY e.sequence LIMIT 1) e ON true
        ORDER BY c.saga_id DESC
        """)

    private func ofRequest(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> SagaIDPage {
        let start = before?.rawValue ?? Self.beyondAll
        var parameters = SQLParameters()
        parameters.append(start)
        parameters.append(Int64(Self.maximumCandidatesOfFirst))
        parameters.append(filter.requestID)
        let rows = try await self.pool.run(SQLQuery(Self.ofRequest, parameters), until: deadline)
        var page = SagaIDPage(ids: [], next: nil)
        for row in rows {
            guard let id = SagaID(try row.text(0)) else { continue }
            if filter.matches(try Candidate(id, Candidate.Halves(state: true, birth: true), row)) {
                page.ids.append(id)
            }
        }
        if page.ids.count > limit {
            page.ids.removeLast(page.ids.count - limit)
            page.next = page.ids.last
        } else if rows.count >= Self.maximumCandidatesOfFirst, let last = rows.last {
            page.next = Self.place(at: try last.text(0), &page.ids, after: start)
        }
        return page
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

    /// What a page looks at, one after the other: each of these gives all that can match.
    ///
    /// Of a user's or tenant's sagas there are many, and of all sagas few have some statuses. What goes on or is parked is nearly always
    /// the least; of what was undone a user may have more than there are others newer.
    private static func course(_ filter: SagaFilter) -> [[Source]] {
        if !filter.resourceID.isEmpty { return [[.resource(filter.resourceID)]] }
        if !filter.batchID.isEmpty { return [[.batch(filter.batchID)]] }
        let rare = Self.statusSources(filter.statuses)
        let theirs: [Source]
        switch (filter.userID.isEmpty, filter.visibility) {
        case (false, _): theirs = [.user(filter.userID)]
        case (true, .all): return [rare ?? [.all]]
        case (true, .user(let user)): theirs = [.user(user)]
        case (true, .tenant(let tenant, let user)):
            theirs = [.user(user)] + (tenant.isEmpty ? [] : [.tenant(tenant)])
        }
        guard let rare else { return [theirs] }
        return rare.allSatisfy(\.isOpen) ? [rare, theirs] : [theirs, rare]
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

    /// What is known of a candidate: what its source's row says, and the other half, if the filter asks for it.
    fileprivate struct Candidate {
        var id: SagaID
        var state: State?
        var birth: Birth?

        /// What to read: the half of the source, and what the filter asks for.
        struct Halves: Hashable {
            var state: Bool
            var birth: Bool
        }

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
            let some = try await self.candidates(source, filter, before: position, count: count, until: deadline)
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
        _ source: Source, _ filter: SagaFilter, before position: String, count: Int,
        until deadline: ContinuousClock.Instant?
    ) async throws(PostgresError) -> Candidates {
        var candidates = Candidates()
        let halves = Candidate.Halves(
            state: source.isOfState || filter.asksForState, birth: !source.isOfState || filter.asksForBirth)
        var groups = self.days.groups(before: position, isOpen: source.isOpen)[...]
        // Most pages end in the newest group; where there is little in each, many are asked at once.
        var atOnce = 1
        while !groups.isEmpty {
            let some = groups.prefix(atOnce)
            let results = try await self.pool.run(
                some.map { self.query(source, halves, over: $0, before: position, count: count) }, until: deadline)
            for (group, rows) in zip(some, results) {
                for row in rows {
                    guard let id = SagaID(try row.text(0)) else { continue }
                    candidates.found.append(try Candidate(id, halves, row))
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

    private func query(
        _ source: Source, _ halves: Candidate.Halves, over group: SagaLeafGroup, before position: String, count: Int
    ) -> SQLQuery {
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
        let isWhole = halves.state && halves.birth
        let statement = self.statements.statement(isWhole ? name + "_whole" : name, over: group) { group in
            let table = source.isOfState ? \SagaLeaf.state : \.event
            let columns =
                (halves.state ? Candidate.stateColumns : []) + (halves.birth ? Candidate.birthColumns : [])
            // Of each leaf by itself, so that the other half is looked for on the same one.
            let parts = group.leaves.reversed().map { leaf in
                """
                (SELECT c.saga_id\(columns.map { ", \($0)" }.joined()) FROM (
                    SELECT * FROM \(leaf[keyPath: table]) c WHERE \(condition)c.saga_id < $1 ORDER BY c.saga_id DESC LIMIT $2) c
                \(isWhole ? Self.otherHalf(of: source, on: leaf) : "") ORDER BY c.saga_id DESC)
                """
            }
            return "SELECT * FROM (\(parts.joined(separator: " UNION ALL "))) c ORDER BY c.saga_id DESC LIMIT $2"
        }
        return SQLQuery(statement, parameters)
    }

    /// OFFSET 0 keeps it a look-up by each candidate's id: plans are made once, for any number of them. The first of a saga's
    /// event rows is its birth.
    private static func otherHalf(of source: Source, on leaf: SagaLeaf) -> String {
        let (columns, rest) =
            source.isOfState
            ? (Candidate.birthColumns, "\(leaf.event) o WHERE o.saga_id = c.saga_id ORDER BY o.sequence LIMIT 1")
            : (Candidate.stateColumns, "\(leaf.state) o WHERE o.saga_id = c.saga_id OFFSET 0")
        return "LEFT JOIN LATERAL (SELECT \(columns.joined(separator: ", ")) FROM \(rest)) o ON true"
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

extension SagaList.Candidate {
    fileprivate static let stateColumns = ["status::text", "saga_type"]
    fileprivate static let birthColumns = ["user_id", "tenant_id", "resource_id", "batch_id"]

    /// - Parameter row: its id, and the columns of the halves, that of the state first.
    fileprivate init(_ id: SagaID, _ halves: Halves, _ row: SQLRow) throws(PostgresError) {
        self.id = id
        if halves.state, let status = try row.optionalText(1) {
            self.state = State(status: status, type: try row.text(2))
        }
        let first = 1 + (halves.state ? Self.stateColumns.count : 0)
        if halves.birth {
            self.birth = Birth(
                userID: try row.optionalText(first) ?? "", tenantID: try row.optionalText(first + 1) ?? "",
                resourceID: try row.optionalUUID(first + 2) ?? "", batchID: try row.optionalText(first + 3) ?? "")
        }
    }
}

extension SagaFilter {
    fileprivate var asksForState: Bool { !self.statuses.isEmpty || !self.type.isEmpty }
    fileprivate var asksForBirth: Bool {
        !self.userID.isEmpty || !self.resourceID.isEmpty || !self.batchID.isEmpty || self.visibility != .all
    }

    /// What is asked for and not there doesn't match.
    fileprivate func matches(_ candidate: SagaList.Candidate) -> Bool {
        if self.asksForState {
            guard let state = candidate.state,
                self.statuses.isEmpty || self.statuses.contains(where: { $0.name == state.status }),
                self.type.isEmpty || Visibility.isSame(state.type, self.type)
            else { return false }
        }
        if self.asksForBirth {
            guard let birth = candidate.birth,
                self.userID.isEmpty || Visibility.isSame(birth.userID, self.userID),
                self.resourceID.isEmpty || birth.resourceID == self.resourceID,
                self.batchID.isEmpty || Visibility.isSame(birth.batchID, self.batchID),
                self.visibility.includes(userID: birth.userID, tenantID: birth.tenantID)
            else { return false }
        }
        return true
    }
}
