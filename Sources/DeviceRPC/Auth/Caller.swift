import RPCTransport
public import SagaRuntime

/// Who calls, and what that allows.
public final class Caller: Sendable {
    public enum Kind: Sendable, Equatable {
        /// Callers are not asked who they are: they may do everything, for whomever they name.
        case anyone
        /// A user, by the subject of a token.
        case user(String)
        /// A service, by the claim `service` of a token.
        case service(String)
        /// A service, by an alternative name of its certificate.
        case certificate(String)
    }

    public let kind: Kind
    /// Of a user; empty: none.
    public let tenantID: String
    public let permissions: Permissions
    private let administersTenant: Bool

    public static let anyone = Caller(.anyone, permissions: .all)

    public init(_ kind: Kind, tenantID: String = "", permissions: Permissions, administersTenant: Bool = false) {
        self.kind = kind
        self.tenantID = tenantID
        self.permissions = permissions.withImplied
        self.administersTenant = administersTenant
    }

    /// For people, e.g. in the audit log.
    public var name: String {
        switch self.kind {
        case .anyone: "anyone"
        case .user(let id): "user:\(id)"
        case .service(let name): "service:\(name)"
        case .certificate(let name): "san:\(name)"
        }
    }

    // MARK: What it may see

    public var visibleDevices: Visibility { self.visible(asAdministratorWith: .deviceRead) }

    /// Devices that it may delete, as far as that is its permission.
    var deletableDevices: Visibility { self.visible(asAdministratorWith: .deviceDelete) }

    /// The same of starting, stopping and restarting.
    var controllableDevices: Visibility { self.visible(asAdministratorWith: .deviceControl) }

    public var visibleSagas: Visibility { self.visible(asAdministratorWith: .sagaRead) }

    func sees(_ saga: SagaSnapshot) -> Bool {
        self.visibleSagas.includes(userID: saga.userID, tenantID: saga.tenantID)
    }

    private func visible(asAdministratorWith permission: Permissions) -> Visibility {
        guard case .user(let id) = self.kind, !self.permissions.contains(.sagaAdmin) else { return .all }
        guard self.administersTenant, !self.tenantID.isEmpty, self.permissions.contains(permission) else {
            return .user(id)
        }
        return .tenant(self.tenantID, user: id)
    }

    // MARK: What it may own

    /// Whose a new device is: the one that the request names, or the caller's own.
    ///
    /// - Throws: PERMISSION_DENIED for another's.
    func owner(userID: String, tenantID: String) throws(RPCError) -> (userID: String, tenantID: String) {
        guard case .user(let id) = self.kind else { return (userID, tenantID) }
        let isOwn = userID.isEmpty || Visibility.isSame(userID, id)
        if isOwn, tenantID.isEmpty || Visibility.isSame(tenantID, self.tenantID) { return (id, self.tenantID) }
        guard self.permissions.contains(.sagaAdmin) else {
            let field = isOwn ? "tenant_id" : "user_id"
            throw RPCError(
                .permissionDenied, "\(field) is another's: that takes a service or saga.admin",
                metadata: ["field": field, "permission": "saga.admin"])
        }
        return (isOwn ? id : userID, tenantID)
    }
}

extension RPCContext {
    /// Who calls, as the `Authenticator` found out.
    ///
    /// - Throws: UNAUTHENTICATED where none has looked: no handler runs for a caller that nobody has let in.
    var caller: Caller {
        get throws(RPCError) {
            guard let caller = self.identity as? Caller else {
                throw RPCError(ErrorReason.unauthenticated, "nobody has found out who calls")
            }
            return caller
        }
    }
}
