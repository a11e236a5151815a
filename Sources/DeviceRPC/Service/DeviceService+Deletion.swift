import DeviceProvisioning
import RPCTransport
import SagaRuntime

extension DeviceService {
    /// A device that there is, or that is being created.
    private struct Found {
        /// What its saga is asked for.
        var request: DeviceRequest
        /// As it is now.
        var shown: V1.Device
    }

    func deleteDevice(
        _ request: V1.DeleteDeviceRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.DeleteDeviceResponse {
        trail.note { $0.deviceID = request.deviceID }
        let specification = try DeleteDeviceSpecification(validating: request)
        let found = try await self.find(specification, caller)
        let device = found.request
        let new = NewSaga(
            id: self.runtime.mintID(), type: DeviceDeletion.type, userID: device.userID, tenantID: device.tenantID,
            resourceID: device.deviceID, requestID: specification.requestID, method: 2,
            requestDigest: self.digest(of: specification.canonicalBytes, requestID: specification.requestID),
            batchID: "", request: device.encoded(), secrets: [], timeout: specification.sagaTimeout)
        trail.note {
            // Known before the saga is: whoever gives up waiting leaves one that goes on.
            $0 = AuditTrail.Subject(sagaID: new.id.rawValue, deviceID: device.deviceID, userID: device.userID)
        }
        let milestone: Milestone = specification.returnWhen == .accepted ? .accepted : .finished
        let (submission, saga) = try await self.runtime.start(new, until: milestone)
        trail.note { $0.sagaID = submission.id.rawValue }
        try Self.checkEnd(of: saga)
        return V1.DeleteDeviceResponse.with {
            $0.sagaID = submission.id.rawValue
            $0.device = found.shown
        }
    }

    /// - Throws: NOT_FOUND also for what the caller may not see.
    private func find(_ specification: DeleteDeviceSpecification, _ caller: Caller) async throws -> Found {
        let id = specification.deviceID
        let visibility = caller.deletableDevices
        if let record = try await self.devices.device(id) { return try Self.found(record, visibility) }
        // Without a record: it is being created, or it is gone, and this request may be the one that has done it.
        let sagas = try await self.runtime.list(
            SagaFilter(resourceID: id, visibility: visibility), before: nil, limit: Self.sagasLookedAt
        ).sagas
        // Its creation may have written the record between the two looks.
        if let record = try await self.devices.device(id) { return try Self.found(record, visibility) }
        let isRepeated = { (saga: SagaSnapshot) in
            saga.type == DeviceDeletion.type && !specification.requestID.isEmpty
                && saga.requestID == specification.requestID
        }
        let isBeingCreated = { (saga: SagaSnapshot) in saga.type == DeviceCreation.type && !saga.status.isTerminal }
        guard let saga = sagas.first(where: isRepeated) ?? sagas.first(where: isBeingCreated),
            let request = try? DeviceRequest(decoding: saga.request), var shown = self.device(creation: saga)
        else { throw RPCError.notFound(V1.Device.self, id) }
        if saga.type == DeviceDeletion.type { shown.status = .deleting }
        return Found(request: request, shown: shown)
    }

    /// Deletions of one device that are told apart by their request ids, once it is gone.
    private static let sagasLookedAt = 100

    private static func found(_ record: DeviceRecord, _ visibility: Visibility) throws(RPCError) -> Found {
        guard visibility.includes(userID: record.userID, tenantID: record.tenantID) else {
            throw .notFound(V1.Device.self, record.deviceID)
        }
        return Found(request: DeviceRequest(record), shown: V1.Device(record))
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
