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
                let page = try await store.list(DeviceFilter(userID: user), after: cursor.position, limit: 4)
                seen += page.records
                guard page.entries.count == 4, let last = page.entries.last else { break }
                // Through the text that callers hold.
                cursor = try #require(DeviceCursor(DeviceCursor(page.position(of: last)).text))
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
            try await store.list(DeviceFilter(statuses: ["RUNNING"]), limit: 100).records.map(\.deviceID) == [
                views[11].resourceID
            ])
        #expect(try await store.list(DeviceFilter(provider: .simulated), limit: 100).records.count == 4)
        #expect(
            try await store.list(DeviceFilter(userID: "user-0", statuses: ["RUNNING", "DELETING"]), limit: 100).records
                .isEmpty)
        #expect(try await store.list(DeviceFilter(userID: "nobody"), limit: 100).records.isEmpty)
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
        let deleting = try await store.list(DeviceFilter(statuses: ["DELETING"]), limit: 10)
        #expect(deleting.records.map(\.deviceID) == [views[1].resourceID] && deleting.next == nil)
        #expect(
            try await store.list(DeviceFilter(userID: "user-0", statuses: ["CREATING"]), limit: 10).records.map(
                \.deviceID)
                == [views[10], views[8], views[6]].map(\.resourceID))
        #expect(try await store.list(DeviceFilter(userID: "user-1", statuses: ["ERROR"]), limit: 10).records.isEmpty)
        await fixture.close()
    }

    /// Devices of two batches, tags and names, of users and tenants that share them.
    @Test func batchesTagsAndNames() async throws {
        let fixture = try await FlushFixture()
        var views: [SagaView] = []
        for index in 0..<12 {
            var view = FlushFixture.view(userID: "user-\(index % 2)")
            var request = try DeviceRequest(decoding: view.request)
            request.name = ["phone", "Phone", "phön", "phone-\(index)", "tablet", "phon\u{10FFFF}"][index % 6]
            request.tenantID = index % 4 == 0 ? "north" : ""
            request.tags = [["red", "blue"], ["red", "red"], []][index % 3]
            view.request = request.encoded()
            view.batchID = index < 8 ? "b-\(index / 4)" : ""
            view.createdAt = Timestamp(microseconds: 1_730_188_800_000_000 + Int64(index / 2))
            views.append(view)
        }
        try await fixture.run(DeviceStatements.record, views)
        // Again, as after a pair of ports proved unusable; and what older programs write.
        try await fixture.run(DeviceStatements.record, Array(views.prefix(3)))
        let store = DeviceStore(database: fixture.pool)
        var all: [DeviceRecord] = []
        func expect(
            _ filter: DeviceFilter, _ line: Int = #line, where matches: (DeviceRecord) -> Bool
        ) async throws {
            let expected = all.filter(matches)
            var seen: [DeviceRecord] = []
            var position: DeviceCursor.Position?
            while true {
                let page = try await store.list(filter, after: position, limit: 2)
                seen += page.records
                guard page.entries.count == 2, let last = page.entries.last else { break }
                position = try #require(DeviceCursor(DeviceCursor(page.position(of: last)).text)).position
            }
            #expect(seen.count == expected.count, "line \(line)")
            #expect(Set(seen.map(\.deviceID)) == Set(expected.map(\.deviceID)), "line \(line)")
            let isByName = filter.batchID.isEmpty && filter.tag.isEmpty
            let isInOrder = zip(seen, seen.dropFirst()).allSatisfy { one, next in
                isByName
                    ? one.name == next.name && one.deviceID < next.deviceID
                        || one.name.utf8.lexicographicallyPrecedes(next.name.utf8)
                    : (one.createdAt, one.deviceID) > (next.createdAt, next.deviceID)
            }
            #expect(isInOrder, "line \(line)")
        }
        func check() async throws {
            all = try await store.list(DeviceFilter(), limit: 100).records
            for visibility in [Visibility.all, .user("user-0"), .tenant("north", user: "user-1")] {
                func sees(_ record: DeviceRecord) -> Bool {
                    visibility.includes(userID: record.userID, tenantID: record.tenantID)
                }
                try await expect(DeviceFilter(batchID: "b-1", visibility: visibility)) {
                    sees($0) && $0.batchID == "b-1"
                }
                try await expect(DeviceFilter(tag: "red", visibility: visibility)) {
                    sees($0) && $0.tags.contains("red")
                }
                for prefix in ["p", "phon", "phone", "phone-", "P", "phön", "phon\u{10FFFF}", "x"] {
                    try await expect(DeviceFilter(namePrefix: prefix, visibility: visibility)) {
                        sees($0) && $0.name.utf8.starts(with: prefix.utf8)
                    }
                }
                try await expect(
                    DeviceFilter(
                        userID: "user-0", batchID: "b-0", namePrefix: "pho", tag: "red", visibility: visibility)
                ) {
                    sees($0) && $0.userID == "user-0" && $0.batchID == "b-0" && $0.tags.contains("red")
                        && $0.name.utf8.starts(with: "pho".utf8)
                }
            }
            let labels = all.map { Set($0.tags).count + ($0.batchID.isEmpty ? 0 : 1) }.reduce(0, +)
            #expect(try await fixture.count("SELECT count(*) FROM device_label WHERE \(labels) >= 0") == labels)
        }
        try await check()
        #expect(all.count == 12 && Set(all.map(\.batchID)) == ["b-0", "b-1", ""])
        try await fixture.run(DeviceStatements.remove, [views[1], views[4]])
        try await fixture.connection.execute(
            "UPDATE devices SET tags = '{red,green}' WHERE device_id = '\(views[0].resourceID)'")
        try await check()
        #expect(all.count == 10)
        await fixture.close()
    }

    /// Each filter follows an index in the list's order, whatever PostgreSQL believes of the tables.
    @Test func filtersFollowIndexes() async throws {
        let fixture = try await FlushFixture()
        let visibilities: [(Visibility, String)] = [
            (.all, ""), (.user("u"), "user_"), (.tenant("t", user: "u"), "tenant_"),
        ]
        for (visibility, owners) in visibilities {
            let isAll = owners.isEmpty
            for (filter, index) in [
                (DeviceFilter(batchID: "b"), isAll ? "device_label_pkey" : "device_label_\(owners.dropLast())"),
                (DeviceFilter(tag: "t"), isAll ? "device_label_pkey" : "device_label_\(owners.dropLast())"),
                (DeviceFilter(namePrefix: "p"), "devices_\(owners)name"),
            ] {
                var filter = filter
                filter.visibility = visibility
                let query = try #require(DeviceListing(filter)?.page(after: nil, limit: 10))
                let plan = try await fixture.plan(of: query)
                #expect(plan.contains { $0.contains("using \(index) on") }, "\(plan)")
                #expect(!plan.contains { $0.contains("Seq Scan") || $0.contains("Bitmap") }, "\(plan)")
            }
        }
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
        let page = try await store.list(DeviceFilter(), limit: 10)
        #expect(Set(page.entries.map { page.position(of: $0).deviceID }) == Set(views.map(\.resourceID)))
        #expect(Set(page.records.map(\.deviceID)) == [views[0].resourceID, views[2].resourceID])
        let outlines = page.entries.compactMap { if case .unreadable(let outline) = $0 { outline } else { nil } }
        #expect(outlines.map(\.deviceID) == [views[1].resourceID] && outlines.map(\.userID) == ["user-1"])
        await fixture.close()
    }

    /// Where few of many match, a page looks at some of them and says where to go on.
    @Test func aPageLooksAtSoManyDevices() async throws {
        let fixture = try await FlushFixture()
        let first = try await Self.filled(fixture, count: 1)[0]
        let count = DeviceListing.maximumCandidates + 10
        try await fixture.connection.execute(
            """
            INSERT INTO devices SELECT (d).* FROM (
                SELECT jsonb_populate_record(d, jsonb_build_object('device_id', gen_random_uuid(), 'status', 'RUNNING',
                    'provider', 'redroid', 'created_at', d.created_at + n * interval '1 ms')) AS d
                FROM devices d, generate_series(1, \(count)) n WHERE d.device_id = '\(first.resourceID)') AS copies
            """)
        let store = DeviceStore(database: fixture.pool)
        let page = try await store.list(DeviceFilter(provider: .simulated), limit: 10)
        #expect(page.records.isEmpty)
        let position = try #require(page.next)
        let next = try #require(DeviceCursor(DeviceCursor(position).text))
        let last = try await store.list(DeviceFilter(provider: .simulated), after: next.position, limit: 10)
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
        _ = try await DeviceStore(database: fixture.pool).list(DeviceFilter(), limit: 1)
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
