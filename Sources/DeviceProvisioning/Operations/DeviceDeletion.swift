public import SagaRuntime

/// The DEVICE_DELETION saga. Its request is the device's own (`DeviceRequest`).
///
/// | step                    | does                                                                              |
/// |-------------------------|-----------------------------------------------------------------------------------|
/// | CLAIM_DEVICE            | takes the device, in the flush; whoever holds it is told to stop, and waited for     |
/// | DESTROY_PROVIDER_DEVICE | the pivot: the provider destroys it                                                |
/// | RELEASE_QUOTA           | tells the user service, if that has counted it                                     |
/// | REMOVE_DATABASE_RECORD  | the row goes, the ports rest                                                       |
///
/// The deadline stops only the claim. A device that turns out to be gone leaves the other steps nothing to do.
public enum DeviceDeletion {
    /// `saga_state.saga_type`.
    public static let type = DeviceOperation.deletion.type
    public static let version = 1
    /// What all live instances must know before there are such sagas.
    static let feature = "deletion"

    public static func definition(
        providers: ProviderRegistry, quota: QuotaClient?, sagas: RuntimeDeviceSagas,
        configuration: DeviceCreation.Configuration = .defaults
    ) -> SagaDefinition {
        Self.definition(providers: providers, quota: quota, others: sagas, configuration: configuration)
    }

    static func definition(
        providers: ProviderRegistry, quota: QuotaClient?, others: any DeviceSagas,
        configuration: DeviceCreation.Configuration = .defaults
    ) -> SagaDefinition {
        let limits = providers.callLimits
        let steps = [
            StepDefinition(
                name: DeviceStep.claimDevice, action: .remote(ClaimDeviceStep(operation: .deletion, sagas: others)),
                claim: OperationStatements.claim(.deletion), retry: Self.claimRetry),
            StepDefinition(
                name: DeviceStep.destroyProviderDevice, kind: .pivot,
                action: .remote(DestroyProviderDeviceStep(providers: providers)), undoRetry: configuration.undoRetry,
                callLimit: limits.destroy + limits.find, unavailableReason: DeviceFailureReason.providerUnavailable),
            StepDefinition(
                name: DeviceStep.releaseQuota, kind: .retriable, action: .remote(ReleaseQuotaStep(client: quota)),
                undoRetry: configuration.undoRetry, callLimit: ReportQuotaUsageStep.callLimit(quota),
                unavailableReason: DeviceFailureReason.quotaUnavailable),
            StepDefinition(
                name: DeviceStep.removeDatabaseRecord, kind: .retriable,
                action: .database(OperationStatements.remove(coolDown: configuration.portCoolDown))),
        ]
        return Self.definition(of: .deletion, steps, requires: Self.feature, providers)
    }

    /// Of looks that failed. Bounded by the deadline.
    static let claimRetry = RetryPolicy(
        maximumRetries: .max, initialDelay: .milliseconds(250), maximumDelay: .seconds(5))

    /// What sagas that begin with a claim have in common.
    static func definition(
        of operation: DeviceOperation, _ steps: [StepDefinition], requires feature: String,
        _ providers: ProviderRegistry
    ) -> SagaDefinition {
        var definition = SagaDefinition(
            type: operation.type, version: Self.version, steps: steps, provisionedStep: steps.count - 1, sleeps: true,
            requiredFeature: feature, site: { _, outputs in SiteOutput.site(outputs) })
        definition.missing = { request, outputs in
            // Before the claim nobody needs anything; of a device that names no site, what its creation would need.
            guard SiteOutput.site(outputs) == nil, case .there(let device) = try? ClaimedDevice(outputs),
                let request = try? DeviceRequest(decoding: request)
            else { return nil }
            return providers.missing(for: request.provider, portHost: device.ports?.host)
        }
        return definition
    }
}
