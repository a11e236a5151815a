import DeviceRPC
import RPCTransport

/// Creates devices over one CreateDevices stream, for callers who each want one. A stream that is lost fails those who wait on it as a
/// lost call would; the next one opens another. From a server that has no CreateDevices they are created one call each.
actor CreationStream {
    private typealias Waiter = CheckedContinuation<V1.CreateDevicesResult, any Error>

    private let client: DeviceClient
    private var call: DeviceClient.Creations?
    /// Which stream it is, so that the end of one lost doesn't end the next.
    private var generation = 0
    /// By request id.
    private var waiters: [String: Waiter] = [:]
    private var isUnary = false

    init(_ client: DeviceClient) { self.client = client }

    /// As the unary call.
    ///
    /// - Parameter request: its request id is no other's that is under way.
    func create(_ request: V1.CreateDeviceRequest, timeout: Duration) async throws -> V1.CreateDeviceResponse {
        do {
            if !self.isUnary { return try await self.createOnStream(request, timeout) }
        } catch let failure as CallFailure where failure.code == .unimplemented {
            self.isUnary = true
        }
        return try await self.client.createDevice(request, timeout: timeout)
    }

    /// Nothing more will be created.
    func finish() { self.call?.finish() }

    private func createOnStream(
        _ request: V1.CreateDeviceRequest, _ timeout: Duration
    ) async throws -> V1.CreateDeviceResponse {
        let call = try await self.open()
        let id = request.requestID
        let expiry = Task {
            try await Task.sleep(for: timeout)
            self.fail(id, CallFailure(RPCError(.deadlineExceeded, "the deadline has passed")))
        }
        defer { expiry.cancel() }
        let result = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (waiter: Waiter) in
                self.waiters[id] = waiter
                // Whatever keeps it from being sent ends the stream, which its reader tells.
                Task { try? await call.send(request) }
            }
        } onCancel: {
            Task { await self.fail(id, CancellationError()) }
        }
        if let error = result.error { throw CallFailure(error) }
        return V1.CreateDeviceResponse.with {
            $0.sagaID = result.sagaID
            $0.device = result.device
        }
    }

    private func open() async throws -> DeviceClient.Creations {
        if let call = self.call { return call }
        let call = try await self.client.createDevices()
        // Somebody else may have been quicker.
        if let call = self.call { return call }
        self.call = call
        self.generation += 1
        let generation = self.generation
        Task { await self.read(call, generation) }
        return call
    }

    private func read(_ call: DeviceClient.Creations, _ generation: Int) async {
        var failure = CallFailure(RPCError(.unavailable, "the stream has ended before its results"))
        do {
            try await call.read { await self.received($0) }
        } catch let error as CallFailure {
            // It can't be read in time here, or is full of what others want: as if the connection were lost.
            let isLost = error.reason == "CLIENT_TOO_SLOW"
            failure = isLost ? CallFailure(RPCError(.unavailable, error.message)) : error
        } catch {}
        guard generation == self.generation else { return }
        self.call = nil
        for id in Array(self.waiters.keys) { self.fail(id, failure) }
    }

    private func received(_ result: V1.CreateDevicesResult) {
        self.waiters.removeValue(forKey: result.requestID)?.resume(returning: result)
    }

    private func fail(_ id: String, _ failure: any Error) {
        self.waiters.removeValue(forKey: id)?.resume(throwing: failure)
    }
}
