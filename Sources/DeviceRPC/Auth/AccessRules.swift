public import RPCTransport

/// What each method takes, by the path that has routed the call.
public struct AccessRules: Sendable {
    enum Access: Sendable, Equatable {
        /// Anybody may call, with no token at all.
        case open
        /// Anybody who can show who they are.
        case known
        /// One of these permissions.
        case oneOf(Permissions)
    }

    private let accesses: [String: Access]

    /// - Parameter services: all that the server has.
    public init(services: [RPCService]) {
        var accesses: [String: Access] = [:]
        for service in services {
            for method in service.methods {
                accesses["/\(service.name)/\(method.name)"] = Self.access(service.name, method.name)
            }
        }
        self.accesses = accesses
    }

    /// What nobody thought of takes the most there is.
    func access(_ path: String) -> Access { self.accesses[path] ?? .oneOf(.sagaAdmin) }

    private static func access(_ service: String, _ method: String) -> Access {
        switch service {
        case "grpc.health.v1.Health": .open
        case "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection": .known
        case DeviceService.name:
            switch method {
            case "CreateDevice", "CreateDevices": .oneOf(.deviceCreate)
            case "DeleteDevice": .oneOf(.deviceDelete)
            case "StartDevice", "StopDevice", "RestartDevice": .oneOf(.deviceControl)
            case "GetDevice", "ListDevices", "BatchGetDevices": .oneOf(.deviceRead)
            // Which sagas are seen is another question: `Caller.visibleSagas`.
            case "GetSaga", "BatchGetSagas", "ListSagas", "WatchSaga", "WatchSagas": .oneOf([.deviceRead, .sagaRead])
            default: .oneOf(.sagaAdmin)
            }
        default: .oneOf(.sagaAdmin)
        }
    }
}
