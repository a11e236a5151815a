public import SagaRuntime

/// The DEVICE_CREATION saga: five steps, their undo, and what they write beside the journal.
///
/// | step                   | does                                   | undo                                            |
/// |------------------------|----------------------------------------|-------------------------------------------------|
/// | ALLOCATE_PORTS         | a pair of ports, in the flush          | released by owner, once the device is destroyed |
/// | CREATE_PROVIDER_DEVICE | the provider makes the device          | the provider destroys it; then its row goes     |
/// | CREATE_DATABASE_RECORD | row in `devices`, CREATING             | marked DELETING                                 |
/// | REPORT_QUOTA_USAGE     | tells the user service, if there is one | tells it again; depends on nothing              |
/// | START_DEVICE           | starts and boots it: RUNNING           | part of the destruction                         |
///
/// The row and the ports stay until the flush that records the destruction, so that the last pointer to a device that
/// can't be destroyed is never lost.
public enum DeviceCreation {
    /// `saga_state.saga_type`.
    public static let type = "DEVICE_CREATION"
    /// New sagas name the site of their calls, and sleep while they have nothing to do, once all live instances know what that is.
    /// Those of version 1 do neither.
    public static let version = 2
    /// What all live instances must know before there are sagas of version 2.
    static let feature = "sites"

    public struct Configuration: Sendable {
        /// How long a released pair of ports rests before it is granted again. Default: 30 s.
        public var portCoolDown: Duration
        /// Of the forward direction. Default: 3 retries, 1 s doubling.
        public var retry: RetryPolicy
        /// Of the undo. Default: about 6 hours.
        public var undoRetry: RetryPolicy

        public init(
            portCoolDown: Duration = .seconds(30), retry: RetryPolicy = .forward, undoRetry: RetryPolicy = .undo
        ) {
            self.portCoolDown = portCoolDown
            self.retry = retry
            self.undoRetry = undoRetry
        }

        public static let defaults = Configuration()
    }

    /// All versions that there are sagas of.
    ///
    /// - Parameters:
    ///   - providers: those that this server is configured for.
    ///   - quota: `nil` without a user service: REPORT_QUOTA_USAGE is skipped.
    public static func definitions(
        providers: ProviderRegistry, quota: QuotaClient?, configuration: Configuration = .defaults
    ) -> [SagaDefinition] {
        [1, Self.version].map {
            Self.definition(version: $0, providers: providers, quota: quota, configuration: configuration)
        }
    }

    static func definition(
        version: Int, providers: ProviderRegistry, quota: QuotaClient?, configuration: Configuration = .defaults
    ) -> SagaDefinition {
        let allocate =
            version == 1
            ? PortStatements.allocate(pools: providers.portPools)
            : SiteStatements.allocate(
                choices: providers.kinds.map { providers.sites(of: $0).count }.max() ?? 1,
                refusal: { providers.refusal(of: $0) }, places: { providers.places($0, $1) })
        var definition = SagaDefinition(
            type: Self.type, version: version,
            steps: Self.steps(allocate, providers: providers, quota: quota, configuration: configuration),
            // Everything but START_DEVICE.
            provisionedStep: 3)
        if version == 1 {
            definition.missing = { request, outputs in
                guard let request = try? DeviceRequest(decoding: request) else { return nil }
                let ports = try? PortPair(output: outputs[DeviceStep.allocatePorts])
                return providers.missing(for: request.provider, portHost: ports?.host)
            }
        } else {
            definition.requiredFeature = Self.feature
            definition.sleeps = true
            definition.site = { _, outputs in SiteOutput.site(outputs) }
        }
        return definition
    }

    private static func steps(
        _ allocate: DatabaseStep, providers: ProviderRegistry, quota: QuotaClient?, configuration: Configuration
    ) -> [StepDefinition] {
        let limits = providers.callLimits
        return [
            StepDefinition(
                name: DeviceStep.allocatePorts, action: .database(allocate),
                onCompensated: [PortStatements.release(coolDown: configuration.portCoolDown)],
                undoAfter: [DeviceStep.createProviderDevice],
                unavailableReason: DeviceFailureReason.portsExhausted),
            StepDefinition(
                name: DeviceStep.createProviderDevice,
                action: .remote(CreateProviderDeviceStep(providers: providers)), undoIsRemote: true,
                onCompensated: [DeviceStatements.remove],
                undoAfter: [DeviceStep.createDatabaseRecord, DeviceStep.startDevice],
                retry: configuration.retry, undoRetry: configuration.undoRetry,
                callLimit: max(limits.create, limits.destroy + limits.find),
                unavailableReason: DeviceFailureReason.providerUnavailable),
            StepDefinition(
                name: DeviceStep.createDatabaseRecord, action: .database(DeviceStatements.record),
                onCompensating: [DeviceStatements.markDeleting]),
            StepDefinition(
                name: DeviceStep.reportQuotaUsage, action: .remote(ReportQuotaUsageStep(client: quota)),
                undoIsRemote: true, retry: configuration.retry, undoRetry: configuration.undoRetry,
                callLimit: ReportQuotaUsageStep.callLimit(quota),
                unavailableReason: DeviceFailureReason.quotaUnavailable),
            StepDefinition(
                name: DeviceStep.startDevice, action: .remote(StartDeviceStep(providers: providers)),
                onSucceeded: [DeviceStatements.markRunning], retry: configuration.retry,
                undoRetry: configuration.undoRetry, callLimit: limits.start,
                unavailableReason: DeviceFailureReason.providerUnavailable),
        ]
    }
}
