import Logging
@testable import SagaRuntime
import TestSupport
import Testing

/// Lists against what they should hold, over many days, by leaves and through the parents.
@Suite struct SagaListTests {
    private struct Row {
        var id: SagaID
        var status: SagaStatus
        var type: String
        var user: String
        var tenant: String
        var batch: String
        var resource: String
        /// Shared by users; empty: none.
        var request = ""
    }

    private struct Fixture {
        var pool: PostgresPool
        var days: [Int64]
        var rows: [Row]

        func list(isByLeaves: Bool) -> SagaList {
            let days = SagaDays()
            if isByLeaves {
                let open = Set(
                    self.rows.filter { $0.status != .completed && $0.status != .compensated }.map {
                        PartitionKeeper.day(of: $0.id)
                    })
                days.learn(self.days, open: open.sorted(), isComplete: true, asked: .now)
            }
            return SagaList(pool: self.pool, days: days, statements: LeafStatements())
        }
    }

    private static let today: Int64 = 20_787
    /// Days in two runs with a gap between them, which cross the borders of ranges.
    private static let days = Array(Self.today - 40...Self.today - 20) + Array(Self.today - 17...Self.today)

    private static func makeFixture(_ count: Int) async throws -> Fixture {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let pool = PostgresPool(database.engineConfiguration, size: 4, maximumWaiters: 100)
        for day in Self.days {
            let leaf = SagaLeaf(day: day)
            let bounds = "FROM ('\(PartitionKeeper.bound(day))') TO ('\(PartitionKeeper.bound(day + 1))')"
            try await pool.execute(
                """
                CREATE TABLE \(leaf.state) PARTITION OF saga_state FOR VALUES \(bounds);
                CREATE TABLE \(leaf.event) PARTITION OF saga_event FOR VALUES \(bounds)
                """)
        }
        var generator = SystemRandomNumberGenerator()
        // A fixed mixture, so that what is rare is there and rare.
        let rows = (0..<count).map { number in
            let day = Self.days[number * 7 % Self.days.count]
            let status: SagaStatus =
                switch number % 20 {
                case 3: .compensated
                case 7: number % 40 == 7 ? .parked : .compensating
                case 11: .running
                default: .completed
                }
            return Row(
                id: SagaID(milliseconds: day * 86_400_000 + Int64(number), using: &generator), status: status,
                type: number % 9 == 0 ? "B" : "A", user: "user-\(number % 3)", tenant: number % 5 == 0 ? "tenant" : "",
                batch: number % 30 == 0 ? "batch" : "",
                resource: number == 60
                    ? "00000000-0000-0000-0000-000000000060" : "00000000-0000-0000-0000-000000000001",
                request: number % 8 == 0 ? "request" : ""
            )
        }
        try await Self.insert(rows, pool)
        return Fixture(pool: pool, days: Self.days, rows: rows.sorted { $0.id > $1.id })
    }

    private static func insert(_ rows: [Row], _ pool: PostgresPool) async throws {
        var rest = rows[...]
        while !rest.isEmpty {
            let some = rest.prefix(500)
            rest = rest.dropFirst(some.count)
            let states = some.map { row in
                let end = row.status == .completed || row.status == .compensated ? "now()" : "NULL"
                return
                    "('\(row.id)', '\(row.status.name)', 0, 1, 1, 1, now(), now(), now(), now(), \(end), 1, '\(row.type)', 'X')"
            }
            let events = some.map { row in
                "('\(row.id)', 1, '\(row.user)', nullif('\(row.tenant)', ''), nullif('\(row.batch)', ''), '\(row.resource)', '')"
            }
            let requests = some.filter { !$0.request.isEmpty }.map {
                "('\($0.user)', '\($0.request)', \($0.id.milliseconds % 10_000), '\($0.id)', '')"
            }
            if !requests.isEmpty {
                try await pool.execute(
                    "INSERT INTO saga_request (user_id, request_id, method, saga_id, digest) VALUES \(requests.joined(separator: ", "))"
                )
            }
            try await pool.execute(
                """
                INSERT INTO saga_state (saga_id, status, step_index, version, last_sequence, owner, timeout_at, started_at,
                    created_at, updated_at, completed_at, definition_version, saga_type, current_step)
                VALUES \(states.joined(separator: ", "));
                INSERT INTO saga_event (saga_id, sequence, user_id, tenant_id, batch_id, resource_id, events)
                VALUES \(events.joined(separator: ", "))
                """)
        }
    }

    private static func matches(_ row: Row, _ filter: SagaFilter) -> Bool {
        (filter.statuses.isEmpty || filter.statuses.contains(row.status))
            && (filter.type.isEmpty || row.type == filter.type) && (filter.userID.isEmpty || row.user == filter.userID)
            && (filter.resourceID.isEmpty || row.resource == filter.resourceID)
            && (filter.batchID.isEmpty || row.batch == filter.batchID)
            && (filter.requestID.isEmpty || row.request == filter.requestID)
            && filter.visibility.includes(userID: row.user, tenantID: row.tenant)
    }

    private static let filters: [SagaFilter] = {
        let statuses: [[SagaStatus]] = [
            [], [.running], [.parked], [.compensated], [.running, .compensating, .parked], [.completed],
            [.completed, .parked], [.compensated, .compensating],
        ]
        let others = [
            SagaFilter(), SagaFilter(type: "B"), SagaFilter(userID: "user-1"), SagaFilter(userID: "nobody"),
            SagaFilter(batchID: "batch"), SagaFilter(userID: "user-0", batchID: "batch"),
            SagaFilter(resourceID: "00000000-0000-0000-0000-000000000060"), SagaFilter(visibility: .user("user-2")),
            SagaFilter(visibility: .tenant("tenant", user: "user-2")),
            SagaFilter(visibility: .tenant("", user: "user-2")),
            SagaFilter(requestID: "request"), SagaFilter(requestID: "none"),
            SagaFilter(
                type: "B", userID: "user-1", requestID: "request", visibility: .tenant("tenant", user: "user-2")),
            SagaFilter(type: "B", userID: "user-1", visibility: .tenant("tenant", user: "user-2")),
        ]
        return statuses.flatMap { statuses in
            others.map { filter in
                var filter = filter
                filter.statuses = statuses
                return filter
            }
        }
    }()

    @Test func everyFilterFindsWhatItShould() async throws {
        let fixture = try await Self.makeFixture(350)
        for isByLeaves in [true, false] {
            let list = fixture.list(isByLeaves: isByLeaves)
            for filter in Self.filters {
                let expected = fixture.rows.filter { Self.matches($0, filter) }.map(\.id)
                for limit in [40, 1001] {
                    var found: [SagaID] = []
                    var before: SagaID?
                    repeat {
                        let page = try await list.page(filter, before: before, limit: limit, until: nil)
                        #expect(page.ids.count <= limit)
                        // Through the text that callers hold.
                        found += page.ids
                        before = page.next.flatMap { SagaID($0.rawValue) }
                    } while before != nil
                    #expect(found == expected, "\(filter), by leaves: \(isByLeaves), limit \(limit)")
                }
            }
        }
        await fixture.pool.shutdown()
    }

    /// Few of many match: the page ends early, and tells where to go on. A user's rare ones are found among all that are rare.
    @Test func aPageLooksAtSoManyCandidates() async throws {
        let fixture = try await Self.makeFixture(0)
        var generator = SystemRandomNumberGenerator()
        let start = Self.today * 86_400_000
        let rows = (0..<SagaList.maximumCandidates + 500).map { number in
            Row(
                id: SagaID(milliseconds: start + Int64(number), using: &generator),
                status: number == 1 ? .compensated : .completed, type: number == 0 ? "RARE" : "A", user: "u",
                tenant: "",
                batch: "", resource: "00000000-0000-0000-0000-000000000001")
        }
        try await Self.insert(rows, fixture.pool)
        let list = Fixture(pool: fixture.pool, days: Self.days, rows: rows).list(isByLeaves: true)
        let first = try await list.page(SagaFilter(type: "RARE"), before: nil, limit: 10, until: nil)
        #expect(first.ids.isEmpty)
        let next = try #require(first.next)
        #expect(next > rows[0].id && next < rows[rows.count - SagaList.maximumCandidates / 2].id)
        let second = try await list.page(SagaFilter(type: "RARE"), before: next, limit: 10, until: nil)
        #expect(second.ids == [rows[0].id] && second.next == nil)
        let undone = try await list.page(
            SagaFilter(statuses: [.compensated], userID: "u"), before: nil, limit: 10, until: nil)
        #expect(undone.ids == [rows[1].id] && undone.next == nil)
        await fixture.pool.shutdown()
    }

    /// A user's rare sagas are looked for among everybody's: the token must not name those of others.
    @Test(arguments: [SagaStatus.parked, .compensated]) func tokenNamesNobodyElsesSaga(_ status: SagaStatus)
        async throws
    {
        let fixture = try await Self.makeFixture(0)
        var generator = SystemRandomNumberGenerator()
        let start = Self.today * 86_400_000
        let others = SagaList.maximumCandidates + SagaList.maximumCandidatesOfFirst
        let mine = SagaList.maximumCandidatesOfFirst + 10
        let rows = (0..<mine + others).map { number in
            // The user's come first and are over, but for the oldest; five of an instant.
            Row(
                id: SagaID(milliseconds: start + Int64(number / 5), using: &generator),
                status: number == 0 || number < others && number > 0 ? status : .completed, type: "A",
                user: number == 0 || number >= others ? "u" : "other", tenant: "", batch: "",
                resource: "00000000-0000-0000-0000-000000000001")
        }
        try await Self.insert(rows, fixture.pool)
        let list = Fixture(pool: fixture.pool, days: Self.days, rows: rows).list(isByLeaves: true)
        var found: [SagaID] = []
        var before: SagaID?
        var pages = 0
        repeat {
            let page = try await list.page(
                SagaFilter(statuses: [status], visibility: .user("u")), before: before, limit: 10, until: nil)
            found += page.ids
            before = page.next
            pages += 1
            if let next = page.next { #expect(!rows.contains { $0.id == next && $0.user == "other" }) }
        } while before != nil && pages < 100
        #expect(found == [rows[0].id])
        // What is parked is looked for among everybody's first, and then among the user's, of which this is the only one left.
        #expect(pages > 1 || status == .parked)
        await fixture.pool.shutdown()
    }

    /// A page that has taken half of its call's time ends, and says where to go on: the other half is for reading what it has found.
    @Test func pageEndsAtHalfOfItsCallsTime() async throws {
        let fixture = try await Self.makeFixture(0)
        var generator = SystemRandomNumberGenerator()
        let slow = SagaLeaf(day: Self.today - 30)
        // The first query sees today's alone. The second waits for the slow day, and has not seen all of it then.
        let rows = [(day: Self.today - 30, count: 1000), (day: Self.today, count: 200)].flatMap { day, count in
            (0..<count).map { number in
                Row(
                    id: SagaID(milliseconds: day * 86_400_000 + Int64(number), using: &generator), status: .completed,
                    type: day < Self.today && number == 0 ? "RARE" : "A", user: "u", tenant: "", batch: "",
                    resource: "00000000-0000-0000-0000-000000000001")
            }
        }
        try await Self.insert(rows, fixture.pool)
        let list = Fixture(pool: fixture.pool, days: Self.days, rows: rows).list(isByLeaves: true)
        async let lock: Void = fixture.pool.execute(
            "BEGIN; LOCK TABLE \(slow.state) IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2.5); COMMIT")
        let isLocked = SQLStatement(
            "",
            """
            SELECT count(*) > 0 FROM pg_locks
            WHERE relation = '\(slow.state)'::regclass AND mode = 'AccessExclusiveLock' AND granted
            """)
        while try await !fixture.pool.run(SQLQuery(isLocked)).single().bool(0) {
            try await Task.sleep(for: .milliseconds(5))
        }
        let deadline = ContinuousClock.now + .seconds(4.5)
        let first = try await list.page(SagaFilter(type: "RARE"), before: nil, limit: 10, until: deadline)
        #expect(first.ids.isEmpty)
        let next = try #require(first.next)
        #expect(next < rows[1000].id && next > rows[0].id)
        #expect(ContinuousClock.now < deadline)
        // With time enough, the next one finds the rest.
        let second = try await list.page(
            SagaFilter(type: "RARE"), before: next, limit: 10, until: ContinuousClock.now + .seconds(30))
        #expect(second.ids == [rows[0].id] && second.next == nil)
        try await lock
        await fixture.pool.shutdown()
    }

    @Test func listGoesOnWithoutALeafThatHasGone() async throws {
        let fixture = try await Self.makeFixture(200)
        let list = fixture.list(isByLeaves: true)
        let gone = SagaLeaf(day: Self.today - 3)
        try await fixture.pool.execute("DROP TABLE \(gone.state); DROP TABLE \(gone.event)")
        let expected = fixture.rows.filter { PartitionKeeper.day(of: $0.id) != gone.day }.map(\.id)
        let page = try await list.page(SagaFilter(), before: nil, limit: 1000, until: nil)
        #expect(page.ids == expected)
        await fixture.pool.shutdown()
    }
}
