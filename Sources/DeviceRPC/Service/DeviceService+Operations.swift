import DeviceProvisioning
import RPCTransport
import SagaRuntime

// What is done with devices that are there: deleted, started, stopped, restarted.

extension DeviceService {
    func deleteDevice(
        _ request: V1.DeleteDeviceRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.DeleteDeviceResponse {
        let (found, saga) = try await self.operate(.deletion, request, caller.deletableDevices, context, trail)
        return V1.DeleteDeviceResponse.with {
            $0.sagaID = saga.rawValue
            $0.device = found.shown
        }
    }

    func startDevice(
        _ request: V1.StartDeviceRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.DeviceOperation { try await self.control(.start, request, caller, context, trail) }

    func stopDevice(
        _ request: V1.StopDeviceRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.DeviceOperation { try await self.control(.stop, request, caller, context, trail) }

    func restartDevice(
        _ request: V1.RestartDeviceRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.DeviceOperation { try await self.control(.restart, request, caller, context, trail) }

    private func control(
        _ operation: DeviceOperation, _ request: some DeviceOperationRequest, _ caller: Caller, _ context: RPCContext,
        _ trail: AuditTrail
    ) async throws -> V1.DeviceOperation {
        let (found, saga) = try await self.operate(operation, request, caller.controllableDevices, context, trail)
        let record = try await self.devices.device(found.request.deviceID)
        return V1.DeviceOperation.with {
            $0.sagaID = saga.rawValue
            $0.device = record.map { V1.Device($0) } ?? found.shown
        }
    }

    /// A device that there is, or that is being created.
    private struct Found {
        /// What its saga is asked for.
        var request: DeviceRequest
        /// As it was before.
        var shown: V1.Device
    }

    /// Starts the saga, or finds the one that the same request started, and waits as the caller wants.
    private func operate(
        _ operation: DeviceOperation, _ request: some DeviceOperationRequest, _ visibility: Visibility,
        _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> (Found, SagaID) {
        let specification = try DeviceOperationSpecification(validating: request)
        trail.note { $0.deviceID = specification.deviceID }
        let found = try await self.find(specification, for: operation, visibility, context)
        let device = found.request
        let new = NewSaga(
            id: self.runtime.mintID(), type: operation.type, userID: device.userID, tenantID: device.tenantID,
            resourceID: device.deviceID, requestID: specification.requestID, method: operation.method,
            requestDigest: self.digest(of: specification.canonicalBytes, requestID: specification.requestID),
            batchID: "", request: device.encoded(), secrets: [], timeout: specification.sagaTimeout)
        trail.note {
            // Known before the saga is: whoever gives up waiting leaves one that goes on.
            $0.sagaID = new.id.rawValue
            $0.deviceID = device.deviceID
            $0.userID = device.userID
        }
        let milestone: Milestone = specification.returnWhen == .accepted ? .accepted : .finished
        let (submission, saga) = try await self.runtime.start(new, until: milestone)
        trail.note { $0.sagaID = submission.id.rawValue }
        if saga.status == .compensated, saga.failure?.reason == DeviceOperation.busyReason {
            throw try await self.busy(saga)
        }
        try Self.checkEnd(of: saga)
        return (found, submission.id)
    }

    /// DEVICE_BUSY, with the saga that holds the device, if one does still.
    private func busy(_ saga: SagaSnapshot) async throws -> RPCError {
        let holder = try await self.devices.device(saga.resourceID)?.holder ?? ""
        var metadata = ["saga_id": saga.id.rawValue, "step": DeviceStep.claimDevice]
        if !holder.isEmpty { metadata["other_saga_id"] = holder }
        return RPCError(
            .deviceBusy, "\(saga.id) did nothing: \(saga.failure?.message ?? "")", metadata: metadata, retry: .never)
    }

    /// - Throws: NOT_FOUND also for what the caller may not see.
    private func find(
        _ specification: DeviceOperationSpecification, for operation: DeviceOperation, _ visibility: Visibility,
        _ context: RPCContext
    ) async throws -> Found {
        let id = specification.deviceID
        if let record = try await self.devices.device(id) { return try Self.found(record, visibility) }
        // Without a record: it is being created, or it is gone, and this request may be the one that has done it.
        let sagas = try await self.longReads.sagas.pass(Client(context)) {
            try await self.runtime.list(
                SagaFilter(resourceID: id, visibility: visibility), before: nil, limit: Self.sagasLookedAt,
                until: context.deadline
            ).sagas
        }
        // Its creation may have written the record between the two looks.
        if let record = try await self.devices.device(id) { return try Self.found(record, visibility) }
        let isRepeated = { (saga: SagaSnapshot) in
            saga.type == operation.type && !specification.requestID.isEmpty
                && saga.requestID == specification.requestID
        }
        let isBeingCreated = { (saga: SagaSnapshot) in saga.type == DeviceCreation.type && !saga.status.isTerminal }
        guard let saga = sagas.first(where: isRepeated) ?? sagas.first(where: isBeingCreated),
            let request = try? DeviceRequest(decoding: saga.request), var shown = self.device(creation: saga)
        else { throw RPCError.notFound(V1.Device.self, id) }
        if saga.type != DeviceCreation.type { shown.status = .deleting }
        return Found(request: request, shown: shown)
    }

    /// Sagas of one device that are told apart by their request ids, once it is gone.
    private static let sagasLookedAt = 100

    private static func found(_ record: DeviceRecord, _ visibility: Visibility) throws(RPCError) -> Found {
        guard visibility.includes(userID: record.userID, tenantID: record.tenantID) else {
            throw .notFound(V1.Device.self, record.deviceID)
        }
        return Found(request: DeviceRequest(record), shown: V1.Device(record))
    }
}

extension DeviceOperation {
    /// Which requests share their ids: `NewSaga.method`.
    fileprivate var method: Int {
        switch self {
        case .deletion: 2
        case .start: 3
        case .stop: 4
        case .restart: 5
        }
    }
}

extension DeviceRequest {
    /// What a device was asked for, as its record has it.
    init(_ record: DeviceRecord) {
        self.init(
            deviceID: record.deviceID, name: record.name, description: record.description, type: record.type,
            provider: record.provider, userID: record.userID, tenantID: record.tenantID, spec: record.spec,
            tags: record.tags, metadata: record.metadata)
    }
}
