import DeviceProvisioning
import SagaRuntime

// The engine's values as the contract's messages. Numbers are the same on both sides.

extension V1.Saga {
    init(_ snapshot: SagaSnapshot) {
        self.init()
        self.sagaID = snapshot.id.rawValue
        self.type = snapshot.type
        self.status = V1.SagaStatus(rawValue: Int32(snapshot.status.rawValue))
        self.stepIndex = UInt32(clamping: snapshot.stepIndex)
        self.currentStep = snapshot.currentStep
        self.steps = snapshot.steps.map(V1.SagaStep.init)
        self.failure = snapshot.failure.map(V1.SagaFailure.init)
        self.deviceID = snapshot.resourceID
        self.userID = snapshot.userID
        self.createdAt = snapshot.createdAt
        self.updatedAt = snapshot.updatedAt
        self.deadline = snapshot.deadline
        self.completedAt = snapshot.completedAt
        self.lastSequence = UInt32(clamping: snapshot.lastSequence)
        self.requestID = snapshot.requestID
        self.batchID = snapshot.batchID
        self.isQuarantined = snapshot.isQuarantined
        self.nextAttemptAt = snapshot.wait?.until
        self.waitingFor = snapshot.wait.map(V1.SagaWait.init)
        if let holder = snapshot.blockingSaga { self.waitingFor?.dependency = holder }
        self.doubt = snapshot.doubtfulStep.map { V1.SagaDoubt(step: $0, wait: snapshot.wait) }
    }
}

extension V1.Saga {
    /// With what only the engine knows: where its calls go, whether they can, and what helps.
    init(_ snapshot: SagaSnapshot, in runtime: SagaRuntime) {
        self.init(snapshot)
        self.site = runtime.site(of: snapshot)
        self.isSiteServed = !self.site.isEmpty && runtime.isServed(self.site)
        self.nextActions = runtime.helpfulCommands(snapshot).map { $0.rawValue.lowercased() }
        if snapshot.status.isActive || snapshot.wait != nil, !self.site.isEmpty, !self.isSiteServed {
            // Whatever it waited for before: nobody would go on with it.
            self.waitingFor = .unserved(site: self.site)
            self.nextAttemptAt = nil
        }
    }
}

extension V1.SagaWait {
    init(_ wait: SagaWait) {
        self.init()
        self.reason = wait.reason.rawValue
        self.dependency = wait.dependency ?? ""
        self.until = wait.until
    }

    /// No live replica can call the site that it needs.
    static func unserved(site: String) -> Self {
        var wait = Self()
        wait.reason = "SITE_UNSERVED"
        wait.dependency = ProviderRegistry.dependency(ofSite: site)
        return wait
    }
}

extension V1.SagaDoubt {
    /// - Parameter wait: what the saga waits for: the end of the doubt, perhaps.
    init(step: String, wait: SagaWait?) {
        self.init()
        self.step = step
        self.isSent = true
        self.until = wait?.reason == .settleTime ? wait?.until : nil
    }
}

extension V1.SagaStep {
    init(_ step: StepSnapshot) {
        self.init()
        self.name = step.name
        self.status = V1.StepStatus(rawValue: Int32(step.status.rawValue))
        self.attempts = UInt32(clamping: step.attempts)
        self.compensationAttempts = UInt32(clamping: step.compensationAttempts)
        self.startedAt = step.startedAt
        self.finishedAt = step.finishedAt
        self.error = step.error
    }
}

extension V1.SagaFailure {
    init(_ failure: SagaFailure) {
        self.init()
        self.cause = V1.FailureCause(rawValue: Int32(failure.cause.rawValue))
        self.step = failure.step
        self.reason = failure.reason
        self.message = failure.message
    }
}

extension V1.SagaEvent {
    init(_ event: SagaEvent, of id: SagaID) {
        self.init()
        self.sagaID = id.rawValue
        self.sequence = event.sequence
        self.time = event.time
        self.type = V1.SagaEventType(rawValue: Int32(event.type.rawValue))
        self.step = event.step
        self.stepIndex = UInt32(clamping: event.stepIndex)
        self.attempt = UInt32(clamping: event.attempt)
        self.message = event.message
        self.sagaStatus = V1.SagaStatus(rawValue: Int32(event.sagaStatus.rawValue))
        self.stepsDone = UInt32(clamping: event.stepsDone)
        self.stepsTotal = UInt32(clamping: event.stepsTotal)
        self.reason = event.reason
        self.retryAt = event.retryAt
    }
}

extension V1.Device {
    /// The device as its creation knows it; `nil` if the saga's request can't be read.
    init?(creation snapshot: SagaSnapshot) {
        guard let request = try? DeviceRequest(decoding: snapshot.request) else { return nil }
        self.init()
        self.deviceID = snapshot.resourceID
        self.name = request.name
        self.description = request.description
        self.type = V1.DeviceType(rawValue: Int32(request.type.rawValue))
        self.status =
            switch snapshot.status {
            case .completed: .running
            case .running, .parked: .creating
            case .compensating, .compensated: .deleting
            }
        self.provider = V1.Provider(rawValue: Int32(request.provider.rawValue))
        self.userID = request.userID
        self.tenantID = request.tenantID
        self.spec = V1.DeviceSpec(request.spec)
        self.tags = request.tags
        self.metadata = request.metadata
        self.externalID = snapshot.providerDevice?.externalID ?? ""
        self.connection = snapshot.deviceConnection.map(V1.Connection.init)
        self.sagaID = snapshot.id.rawValue
        self.batchID = snapshot.batchID
        if !snapshot.status.isTerminal { self.operationSagaID = snapshot.id.rawValue }
        self.createdAt = snapshot.createdAt
        self.updatedAt = snapshot.deviceUpdatedAt
    }
}

extension V1.Device {
    /// The device as its record has it.
    init(_ record: DeviceRecord) {
        self.init()
        self.deviceID = record.deviceID
        self.name = record.name
        self.description = record.description
        self.type = V1.DeviceType(rawValue: Int32(record.type.rawValue))
        self.status = V1.DeviceStatus(name: record.status.name) ?? .unspecified
        self.provider = V1.Provider(rawValue: Int32(record.provider.rawValue))
        self.userID = record.userID
        self.tenantID = record.tenantID
        self.spec = V1.DeviceSpec(record.spec)
        self.tags = record.tags
        self.metadata = record.metadata
        self.externalID = record.externalID
        self.connection = record.connection.map(V1.Connection.init)
        self.sagaID = record.sagaID
        self.createdAt = record.createdAt
        self.updatedAt = record.updatedAt
        self.site = record.site
        self.batchID = record.batchID
        self.operationSagaID = record.holder
        self.statusReason = record.statusReason
    }
}

extension V1.DeviceSpec {
    init(_ spec: DeviceSpec) {
        self.init()
        self.cpuCores = UInt32(clamping: spec.cpuCores)
        self.memoryMB = UInt32(clamping: spec.memoryMB)
        self.storageMB = UInt32(clamping: spec.storageMB)
        self.widthPx = UInt32(clamping: spec.widthPixels)
        self.heightPx = UInt32(clamping: spec.heightPixels)
        self.dpi = UInt32(clamping: spec.dpi)
        self.androidVersion = spec.androidVersion
    }
}

extension DeviceSpec {
    /// Of a checked request: no field is zero.
    init(_ spec: V1.DeviceSpec) {
        self.init(
            cpuCores: Int(spec.cpuCores), memoryMB: Int(spec.memoryMB), storageMB: Int(spec.storageMB),
            widthPixels: Int(spec.widthPx), heightPixels: Int(spec.heightPx), dpi: Int(spec.dpi),
            androidVersion: spec.androidVersion)
    }
}

extension V1.Connection {
    init(_ connection: DeviceConnection) {
        self.init()
        self.host = connection.host
        self.adbPort = UInt32(clamping: connection.adbPort)
        self.webrtcPort = UInt32(clamping: connection.webRTCPort)
        self.attributes = connection.attributes
    }
}
