public import SagaRuntime

/// The sagas that start, stop and restart a device that is there. Their request is the device's own (`DeviceRequest`).
///
/// | type           | steps (undo)                                                                                              |
/// |----------------|-----------------------------------------------------------------------------------------------------------|
/// | DEVICE_START   | CLAIM_DEVICE (given back), START_DEVICE (stopped), UPDATE_DATABASE_RECORD                                  |
/// | DEVICE_STOP    | CLAIM_DEVICE (given back), STOP_DEVICE (the pivot), UPDATE_DATABASE_RECORD                                  |
/// | DEVICE_RESTART | CLAIM_DEVICE (given back), STOP_DEVICE (stopped), START_DEVICE (stopped), UPDATE_DATABASE_RECORD            |
///
/// A start that fails leaves the device STOPPED, and says why. What was given back before anything was done to it is what it was. One
/// that is already what it is to become is left as it is.
public enum DeviceControl {
    /// What all live instances must know before there are such sagas.
    static let feature = "control"

    public static func definitions(
        providers: ProviderRegistry, sagas: RuntimeDeviceSagas, configuration: DeviceCreation.Configuration = .defaults
    ) -> [SagaDefinition] {
        Self.definitions(providers: providers, others: sagas, configuration: configuration)
    }

    static func definitions(
        providers: ProviderRegistry, others: any DeviceSagas, configuration: DeviceCreation.Configuration = .defaults
    ) -> [SagaDefinition] {
        let limits = providers.callLimits
        func claim(_ operation: DeviceOperation) -> StepDefinition {
            StepDefinition(
                name: DeviceStep.claimDevice, action: .remote(ClaimDeviceStep(operation: operation, sagas: others)),
                claim: OperationStatements.claim(operation), onCompensated: [OperationStatements.giveBack],
                undoAfter: [DeviceStep.stopDevice, DeviceStep.startDevice], retry: DeviceDeletion.claimRetry)
        }
        func stop(_ kind: StepDefinition.Kind) -> StepDefinition {
            StepDefinition(
                name: DeviceStep.stopDevice, kind: kind, action: .remote(StopClaimedDeviceStep(providers: providers)),
                undoIsRemote: kind != .pivot, onSucceeded: kind == .pivot ? [] : [OperationStatements.markStarting],
                undoAfter: [DeviceStep.startDevice], retry: configuration.retry,
                undoRetry: configuration.undoRetry, callLimit: limits.stop + limits.find,
                unavailableReason: DeviceFailureReason.providerUnavailable)
        }
        let start = StepDefinition(
            name: DeviceStep.startDevice, action: .remote(StartClaimedDeviceStep(providers: providers)),
            undoIsRemote: true, retry: configuration.retry, undoRetry: configuration.undoRetry,
            callLimit: limits.start + limits.find, unavailableReason: DeviceFailureReason.providerUnavailable)
        func update(_ status: DeviceStatus, kind: StepDefinition.Kind = .compensatable) -> StepDefinition {
            StepDefinition(
                name: DeviceStep.updateDatabaseRecord, kind: kind,
                action: .database(
                    OperationStatements.update(status, connection: status == .running ? DeviceStep.startDevice : nil)))
        }
        let steps: [(DeviceOperation, [StepDefinition])] = [
            (.start, [claim(.start), start, update(.running)]),
            (.stop, [claim(.stop), stop(.pivot), update(.stopped, kind: .retriable)]),
            (.restart, [claim(.restart), stop(.compensatable), start, update(.running)]),
        ]
        return steps.map { DeviceDeletion.definition(of: $0, $1, requires: Self.feature, providers) }
    }
}

/// START_DEVICE of a device that was stopped: started, reachable, booted. Its undo stops it.
struct StartClaimedDeviceStep: RemoteStep {
    let providers: ProviderRegistry

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        guard let device = try ClaimedDevice.claim(of: context) else { return .done(output: "{}") }
        let call = try ProviderCall(claimed: device, context, self.providers)
        return .done(output: try await call.provider.start(try await call.device(), call.request).output)
    }

    /// Starting what already runs changes nothing.
    var isRepeatable: Bool { true }
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        guard let device = try ClaimedDevice.claim(of: context) else { return .nothingFound }
        let call = try ProviderCall(claimed: device, context, self.providers)
        return try await call.stop() ? .undone : .nothingFound
    }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    func dependency(request: [UInt8], outputs: [String: String]) -> String? {
        self.providers.dependency(of: request, outputs: outputs)
    }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { self.providers.settleTime(of: request) }
}

/// STOP_DEVICE. One that the provider has lost doesn't run any more: the step's output says so.
///
/// Its undo stops it too: a stop that nobody has answered may not have happened, and what is not started again is stopped for certain.
struct StopClaimedDeviceStep: RemoteStep {
    let providers: ProviderRegistry

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }

    func execute(_ context: StepContext) async throws(StepError) -> Execution {
        guard let device = try ClaimedDevice.claim(of: context) else { return .done(output: "{}") }
        let wasThere = try await ProviderCall(claimed: device, context, self.providers).stop()
        return .done(output: wasThere ? "{}" : #"{"missing":true}"#)
    }

    /// Stopping what is stopped changes nothing.
    var isRepeatable: Bool { true }
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }

    func compensate(_ context: StepContext) async throws(StepError) -> Undone {
        guard let device = try ClaimedDevice.claim(of: context) else { return .nothingFound }
        return try await ProviderCall(claimed: device, context, self.providers).stop() ? .undone : .nothingFound
    }

    func discard(_ context: StepContext, output: String?) async throws(StepError) {}

    func dependency(request: [UInt8], outputs: [String: String]) -> String? {
        self.providers.dependency(of: request, outputs: outputs)
    }

    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }
}

extension ProviderCall {
    /// False: the provider doesn't have it.
    fileprivate func stop() async throws(StepError) -> Bool {
        do throws(StepError) {
            try await self.provider.stop(try await self.device(), self.request)
            return true
        } catch {
            guard error.errorClass == .notFound else { throw error }
            return false
        }
    }
}

extension ProviderRegistry {
    /// How long after a call its effect may still appear.
    func settleTime(of request: [UInt8]) -> Duration {
        guard let request = try? DeviceRequest(decoding: request) else { return .seconds(30) }
        return self.lag(of: request.provider, options: [:]) ?? .seconds(30)
    }
}
