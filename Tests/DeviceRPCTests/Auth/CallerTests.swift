import RPCTransport
import SagaRuntime
import Testing

@testable import DeviceRPC

@Suite struct CallerTests {
    @Test func whatIsSeenFollowsFromWhoCalls() {
        let user = Caller(.user("ann"), tenantID: "north", permissions: [.deviceRead, .sagaRead])
        #expect(user.visibleDevices == .user("ann") && user.visibleSagas == .user("ann"))
        let administrator = Caller(
            .user("max"), tenantID: "north", permissions: .deviceRead, administersTenant: true)
        #expect(administrator.visibleDevices == .tenant("north", user: "max"))
        #expect(administrator.visibleSagas == .user("max"), "others' sagas take saga.read")
        let nowhere = Caller(.user("max"), permissions: .all.subtracting(.sagaAdmin), administersTenant: true)
        #expect(nowhere.visibleDevices == .user("max") && nowhere.visibleSagas == .user("max"))
        for caller in [
            Caller.anyone, Caller(.service("s"), permissions: []), Caller(.certificate("c"), permissions: []),
            Caller(.user("root"), permissions: .sagaAdmin),
        ] {
            #expect(caller.visibleDevices == .all && caller.visibleSagas == .all)
        }
    }

    @Test func visibilityIncludesNoNamelessTenant() {
        #expect(!Visibility.tenant("", user: "max").includes(userID: "ann", tenantID: ""))
        #expect(!Visibility.tenant("north", user: "max").includes(userID: "ann", tenantID: "south"))
        #expect(Visibility.tenant("north", user: "max").includes(userID: "max", tenantID: "south"))
        #expect(!Visibility.user("ann").includes(userID: "", tenantID: ""))
    }

    /// To Swift's `==` each pair is equal.
    @Test(arguments: [("jos\u{e9}", "jose\u{301}"), ("Kim", "\u{212a}im")])
    func namesAreComparedByteByByte(name: String, other: String) throws {
        #expect(!Visibility.user(name).includes(userID: other, tenantID: ""))
        #expect(!Visibility.tenant(name, user: "max").includes(userID: "ann", tenantID: other))
        #expect(!Visibility.tenant("north", user: name).includes(userID: other, tenantID: ""))
        let user = Caller(.user(name), tenantID: name, permissions: .deviceCreate)
        #expect(throws: RPCError.self) { try user.owner(userID: other, tenantID: "") }
        #expect(throws: RPCError.self) { try user.owner(userID: "", tenantID: other) }
        #expect(try user.owner(userID: name, tenantID: name) == (name, name))
    }

    @Test func sagaAdminReadsSagas() {
        #expect(Caller(.service("s"), permissions: .sagaAdmin).permissions.contains(.sagaRead))
    }

    /// No interceptor has looked at the call: no handler may take that for leave.
    @Test func aCallThatNobodyLetInHasNoCaller() {
        #expect(throws: RPCError.self) { try RPCContext(method: "/a.B/C").caller }
        #expect(throws: Never.self) { try RPCContext(method: "/a.B/C", identity: Caller.anyone).caller }
    }

    @Test func whatNobodyThoughtOfTakesTheMost() {
        let rules = AccessRules(services: [RPCService(name: "a.B", methods: [.unary("C") { _, _ in fatalError() }])])
        #expect(rules.access("/a.B/C") == .oneOf(.sagaAdmin) && rules.access("/x.Y/Z") == .oneOf(.sagaAdmin))
    }
}
