import Testing

@testable import DeviceRPC

@Suite struct PermissionMapTests {
    @Test func entriesAreJoinedBySemicolonsAndLineEnds() throws {
        let map = try PermissionMap(
            """
            role:user=device.create,device:read ; role:admin = saga.read, tenant.admin  # who else
            # service:commented = saga.admin
            service:a b = device.delete
            san:spiffe://x/y?z=1 = device.read device.create
            san:orders.shop =
            """)
        #expect(map.roles["user"] == PermissionMap.Grant(permissions: [.deviceCreate, .deviceRead]))
        #expect(map.roles["admin"] == PermissionMap.Grant(permissions: .sagaRead, administersTenant: true))
        #expect(map.services == ["a b": PermissionMap.Grant(permissions: .deviceDelete)])
        #expect(map.certificates["spiffe://x/y?z=1"]?.permissions == [.deviceRead, .deviceCreate])
        #expect(map.certificates["orders.shop"] == PermissionMap.Grant())
        #expect(try PermissionMap("").isEmpty && PermissionMap(" ;\n # nothing\n").isEmpty)
    }

    @Test(arguments: [
        ("role:user", "has no ="), ("user=device.read", "must be role:NAME"),
        ("role:=device.read", "must be role:NAME"),
        ("group:x=device.read", "must be role:NAME"), ("role:user=device.fly", "device.fly is no permission"),
        ("service:x=tenant.admin", "tenant.admin is no permission"), ("san:x=tenant.admin", "tenant.admin is no"),
        ("role:a=device.read;role:a=saga.read", "is there twice"),
    ])
    func mistakesAreNamed(text: String, problem: String) {
        #expect { try PermissionMap(text) } throws: { "\($0)".contains(problem) }
    }

    @Test func namesAreSpelledEitherWay() {
        for name in Permissions.allNames {
            let other = String(name.map { $0 == "." ? ":" : $0 })
            #expect(Permissions(name: name) != nil && Permissions(name: name) == Permissions(name: other))
        }
        #expect(Permissions(name: "device.update") == nil && Permissions(name: "") == nil)
    }
}
