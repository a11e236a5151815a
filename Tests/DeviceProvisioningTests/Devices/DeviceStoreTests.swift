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
                let page = try await store.list(userID: user, after: cursor.position, limit: 4)
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
            try await store.list(userID: "", statuses: ["RUNNING"], limit: 100).map(\.deviceID) == [
                views[11].resourceID
            ])
        #expect(try await store.list(userID: "", provider: .simulated, limit: 100).count == 4)
        #expect(try await store.list(userID: "user-0", statuses: ["RUNNING", "DELETING"], limit: 100).isEmpty)
        #expect(try await store.list(userID: "nobody", limit: 100).isEmpty)
        #expect(DeviceCursor("x") == nil && DeviceCursor("1.2") == nil && DeviceCursor("1.2.3") == nil)
        // Before the epoch there is no device, and long before it no instant that the database can hold.
        #expect(DeviceCursor("-211813488000000000.ffffffff-ffff-ffff-ffff-ffffffffffff") == nil)
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
