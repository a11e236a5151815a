import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite(.serialized) struct DeviceStoreTests {
    /// `count` devices of two users, two a millisecond, the last one RUNNING.
    private static func filled(_ fixture: FlushFixture, count: Int) async throws -> [SagaView] {
        var views: [SagaView] = []
        for index in 0..<count {
            var view = FlushFixture.view(index % 3 == 0 ? .simulated : .redroid, userID: "user-\(index % 2)")
            view.createdAt = Timestamp(microseconds: 1_730_188_800_000_000 + Int64(index / 2))
            views.append(view)
        }
        try await fixture.run(DeviceStatements.record, views)
        if let last = views.last { try await fixture.run(DeviceStatements.markRunning, [last]) }
        return views
    }

    @Test func pagesAreNewestFirstWithoutGapOrRepeat() async throws {
        let fixture = try await FlushFixture()
        let views = try await Self.filled(fixture, count: 25)
        let store = DeviceStore(database: fixture.pool)
        for user in ["", "user-1"] {
            var seen: [DeviceRecord] = []
            var cursor = try #require(DeviceCursor(""))
            while true {
                let page = try await store.list(userID: user, after: cursor.position, limit: 4).records
                seen += page
                guard page.count == 4, let last = page.last else { break }
                // Through the text that callers hold.
                cursor = try #require(DeviceCursor(DeviceCursor(last).text))
            }
            let expected = views.filter { user.isEmpty || $0.userID == user }
            #expect(Set(seen.map(\.deviceID)) == Set(expected.map(\.resourceID)) && seen.count == expected.count)
            #expect(
                zip(seen, seen.dropFirst()).allSatisfy { ($0.createdAt, $0.deviceID) > ($1.createdAt, $1.deviceID) })
        }
        await fixture.close()
    }

    @Test func filters() async throws {
        let fixture = try await FlushFixture()
        let views = try await Self.filled(fixture, count: 12)
        let store = DeviceStore(database: fixture.pool)
        #expect(
            try await store.list(userID: "", statuses: ["RUNNING"], limit: 100).records.map(\.deviceID) == [
                views[11].resourceID
            ])
        #expect(try await store.list(userID: "", provider: .simulated, limit: 100).records.count == 4)
        #expect(try await store.list(userID: "user-0", statuses: ["RUNNING", "DELETING"], limit: 100).records.isEmpty)
        #expect(try await store.list(userID: "nobody", limit: 100).records.isEmpty)
        #expect(DeviceCursor("x") == nil && DeviceCursor("1.2") == nil && DeviceCursor("1.2.3") == nil)
        // Before the epoch there is no device, and long before it no instant that the database can hold.
        #expect(DeviceCursor("-211813488000000000.ffffffff-ffff-ffff-ffff-ffffffffffff") == nil)
        await fixture.close()
    }

    /// What the trigger keeps is what isn't RUNNING, whichever statement has changed it.
    @Test func devicesThatDoNotRunAreKeptApart() async throws {
        let fixture = try await FlushFixture()
        let views = try await Self.filled(fixture, count: 12)
        let kept = """
            SELECT count(*) FROM device_not_running n JOIN devices d USING (user_id, created_at, device_id, tenant_id)
            WHERE d.status <> 'RUNNING'
            """
        func check(_ notRunning: Int) async throws {
            #expect(try await fixture.count(kept + " AND \(notRunning) >= 0") == notRunning)
            #expect(
                try await fixture.count("SELECT count(*) FROM device_not_running WHERE \(notRunning) >= 0")
                    == notRunning)
        }
        try await check(11)
        try await fixture.run(DeviceStatements.record, Array(views.prefix(3)))
        try await fixture.run(DeviceStatements.markRunning, Array(views.prefix(6)))
        try await check(5)
        try await fixture.run(DeviceStatements.markDeleting, Array(views.prefix(2)))
        try await check(7)
        try await fixture.run(DeviceStatements.remove, [views[0], views[2]])
        try await check(6)
        let store = DeviceStore(database: fixture.pool)
        let deleting = try await store.list(userID: "", statuses: ["DELETING"], limit: 10)
        #expect(deleting.records.map(\.deviceID) == [views[1].resourceID] && deleting.next == nil)
        #expect(
            try await store.list(userID: "user-0", statuses: ["CREATING"], limit: 10).records.map(\.deviceID)
                == [views[10], views[8], views[6]].map(\.resourceID))
        #expect(try await store.list(userID: "user-1", statuses: ["ERROR"], limit: 10).records.isEmpty)
        await fixture.close()
    }

    /// Damaged rows, and those of a newer version, keep nobody from the others.
    @Test(arguments: [
        "provider = 'QUANTUM'", "metadata = '[]'", #"metadata = '{"a": 1}'"#, "attributes = 'null'",
        "tags = ARRAY[NULL]::text[]", #"metadata = '{"a": null}', provider = ''"#,
    ])
    func rowThatCannotBeReadIsListedAsAnOutline(change: String) async throws {
        let fixture = try await FlushFixture()
        let views = try await Self.filled(fixture, count: 3)
        try await fixture.connection.execute(
            "UPDATE devices SET \(change) WHERE device_id = '\(views[1].resourceID)'")
        let store = DeviceStore(database: fixture.pool)
        let page = try await store.list(userID: "", limit: 10)
        #expect(Set(page.entries.map(\.position.deviceID)) == Set(views.map(\.resourceID)))
        #expect(Set(page.records.map(\.deviceID)) == [views[0].resourceID, views[2].resourceID])
        let outlines = page.entries.compactMap { if case .unreadable(let outline) = $0 { outline } else { nil } }
        #expect(outlines.map(\.deviceID) == [views[1].resourceID] && outlines.map(\.userID) == ["user-1"])
        await fixture.close()
    }

    /// Where few of many match, a page looks at some of them and says where to go on.
    @Test func aPageLooksAtSoManyDevices() async throws {
        let fixture = try await FlushFixture()
        let first = try await Self.filled(fixture, count: 1)[0]
        let count = DeviceStore.maximumCandidates + 10
        try await fixture.connection.execute(
            """
            INSERT INTO devices SELECT (d).* FROM (
                SELECT jsonb_populate_record(d, jsonb_build_object('device_id', gen_random_uuid(), 'status', 'RUNNING',
                    'provider', 'redroid', 'created_at', d.created_at + n * interval '1 ms')) AS d
                FROM devices d, generate_series(1, \(count)) n WHERE d.device_id = '\(first.resourceID)') AS copies
            """)
        let store = DeviceStore(database: fixture.pool)
        let page = try await store.list(userID: "", provider: .simulated, limit: 10)
        #expect(page.records.isEmpty)
        let position = try #require(page.next)
        let next = try #require(DeviceCursor(DeviceCursor(position).text))
        let last = try await store.list(userID: "", provider: .simulated, after: next.position, limit: 10)
        #expect(last.records.map(\.deviceID) == [first.resourceID] && last.next == nil)
        await fixture.close()
    }

    @Test func lookUpsThatComeTogetherAllGetTheirs() async throws {
        let fixture = try await FlushFixture()
        let views = try await Self.filled(fixture, count: 40)
        let store = DeviceStore(database: fixture.pool)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for view in views + views {
                group.addTask {
                    let known = try await store.device(view.resourceID.uppercased())
                    #expect(known?.deviceID == view.resourceID)
                    let unknown = try await store.device(DeviceID.mint())
                    #expect(unknown == nil)
                }
            }
            try await group.waitForAll()
        }
        #expect(try await store.device("not a uuid") == nil)
        await fixture.close()
    }

    @Test func plansUseTheIndexes() async throws {
        let fixture = try await FlushFixture()
        _ = try await Self.filled(fixture, count: 2)
        _ = try await DeviceStore(database: fixture.pool).list(userID: "", limit: 1)
        for (condition, index) in [("", "devices_created"), ("user_id = 'u' AND ", "devices_user")] {
            let plan = try await fixture.rows(
                """
                EXPLAIN SELECT * FROM devices d
                WHERE \(condition)(d.created_at, d.device_id) < (now(), '00000000-0000-0000-0000-000000000000')
                ORDER BY d.created_at DESC, d.device_id DESC LIMIT 10
                """
            ).joined(separator: "\n")
            #expect(plan.contains("Index Scan Backward using \(index)") && !plan.contains("Sort"), "\(plan)")
        }
        await fixture.close()
    }
}
