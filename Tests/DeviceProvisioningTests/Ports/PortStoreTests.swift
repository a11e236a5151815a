import SagaRuntime
import TestSupport
import Testing

@testable import DeviceProvisioning

@Suite struct PortStoreTests {
    @Test func pagesHoldEachPortOnceWhereverTheyEnd() async throws {
        let fixture = try await FlushFixture()
        let pool = PortPool(
            name: "redroid",
            supply: .hosts(["a.b", "c"].map { PortHost(name: $0, adb: 5555...5556, webRTC: 8080...8081) }))
        try await PortKeeper(pools: [pool], database: fixture.pool).prepare()
        let views = (0..<3).map { _ in FlushFixture.view() }
        #expect(try await fixture.run(PortStatements.allocate(pools: [.redroid: pool]), views).count == 3)
        let store = PortStore(database: fixture.pool)
        let all = try await store.list(host: "", after: #require(PortCursor("")), limit: 100)
        #expect(all.count == 6 && Set(all.map(\.sagaID)) == Set(views.map(\.sagaID.rawValue)))
        #expect(all.map(\.kind) == [.adb, .webrtc, .adb, .webrtc, .adb, .webrtc])
        #expect(all.map(\.host) == all.map(\.host).sorted())
        for size in 1...4 {
            var paged: [AllocatedPort] = []
            var cursor = try #require(PortCursor(""))
            while true {
                let page = try await store.list(host: "", after: cursor, limit: size)
                guard let last = page.last else { break }
                paged += page
                cursor = try #require(PortCursor(PortCursor(last).text))
            }
            #expect(paged == all)
        }
        let ofHost = try await store.list(host: "a.b", after: #require(PortCursor("")), limit: 100)
        #expect(ofHost == all.filter { $0.host == "a.b" } && !ofHost.isEmpty)
        await fixture.close()
    }

    @Test(arguments: ["x", "1", "1.0", "0.0.h", "65536.0.h", "1.2.h", "-1.0.h", "1.-1.h", "1.x.h", "..", "1..h"])
    func whatIsNoCursorIsNone(_ text: String) {
        #expect(PortCursor(text) == nil)
    }
}
