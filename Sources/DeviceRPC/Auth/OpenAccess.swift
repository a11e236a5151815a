public import RPCTransport

/// For a server whose callers are not asked who they are.
public struct OpenAccess: RPCInterceptor {
    public init() {}

    public func intercept(_ context: inout RPCContext) async throws { _ = try self.interceptAtOnce(&context) }

    public func interceptAtOnce(_ context: inout RPCContext) throws -> Bool {
        context.identity = Caller.anyone
        return true
    }
}
