import Crypto
public import DeviceProvisioning
public import Logging
import NIOCore
public import RPCTransport
public import SagaRuntime

/// `cloudphone.device.v1.DeviceService`: messages in, sagas out.
public struct DeviceService: MethodMaking {
    public static let name = "cloudphone.device.v1.DeviceService"
    /// A page of a list ends here, whatever its size.
    static let maximumPageBytes = 1 << 20
    /// Metadata and options alone may have 80 KiB: 32 entries each, of up to 320 characters of 4 bytes.
    static let maximumCreateDeviceBytes = 256 * 1024
    /// A thousand ids, of sagas or devices.
    static let maximumBatchGetSagasBytes = 64 * 1024

    let runtime: SagaRuntime
    let providers: ProviderRegistry
    let devices: DeviceStore
    let digestKey: SymmetricKey
    let logger: Logger
    private let encodings = EventEncodings()
    let audit: AuditLog
    let creationStreams = CreationStreams()
    /// Reads that may each take a connection of the database for long. A part of these is left to all others: to reads of
    /// single sagas and devices, and to the server's own.
    let longReads: (sagas: FairGate<Client>, devices: FairGate<Client>)

    /// - Parameters:
    ///   - digestKey: of the request digests; the same on all replicas (`SagaRuntime.requestDigestKey`).
    ///   - longReads: lists, and reads of many sagas, at a time, of those that read sagas and of those that read devices.
    ///   - heldBack: told of each call that has to wait for its turn.
    public init(
        runtime: SagaRuntime, providers: ProviderRegistry, devices: DeviceStore, digestKey: [UInt8], audit: AuditLog,
        longReads: (sagas: Int, devices: Int), heldBack: @escaping @Sendable (RPCRefusal) -> Void, logger: Logger
    ) {
        self.longReads = (
            FairGate(permits: longReads.sagas) { heldBack(.tooManyReads) },
            FairGate(permits: longReads.devices) { heldBack(.tooManyReads) }
        )
        self.runtime = runtime
        self.providers = providers
        self.devices = devices
        self.digestKey = SymmetricKey(data: digestKey)
        self.logger = logger
        self.audit = audit
    }

    public var service: RPCService {
        RPCService(
            name: Self.name,
            methods: [
                self.changing("CreateDevice", maximumBytes: Self.maximumCreateDeviceBytes) {
                    try await self.createDevice($0, $1, $3)
                },
                .bidirectional("CreateDevices", maximumMessageBytes: Self.maximumCreateDeviceBytes) {
                    try await self.createDevices($0, $1, $2)
                },
                self.unary("GetDevice", self.getDevice), self.unary("ListDevices", self.listDevices),
                self.unary("BatchGetDevices", maximumBytes: Self.maximumBatchGetSagasBytes, self.batchGetDevices),
                self.unary("GetSaga", self.getSaga),
                self.unary("BatchGetSagas", maximumBytes: Self.maximumBatchGetSagasBytes, self.batchGetSagas),
                self.unary("ListSagas", self.listSagas),
                .serverStreaming(
                    "WatchSaga", endsAtDrain: true, staysOnEventLoop: true,
                    maximumMessageBytes: Self.maximumRequestBytes
                ) { message, context, writer in
                    do {
                        try await self.watchSaga(V1.WatchSagaRequest(decoding: message), try context.caller, writer)
                    } catch {
                        throw RPCError.of(error)
                    }
                },
                .serverStreaming("WatchSagas", endsAtDrain: true, maximumMessageBytes: Self.maximumBatchGetSagasBytes) {
                    message, context, writer in
                    do {
                        try await self.watchSagas(
                            V1.WatchSagasRequest(decoding: message), try context.caller, context, writer)
                    } catch {
                        throw RPCError.of(error)
                    }
                }, self.changing("DeleteDevice", self.deleteDevice),
                self.changing("StartDevice", self.startDevice), self.changing("StopDevice", self.stopDevice),
                self.changing("RestartDevice", self.restartDevice),
            ], onDrain: { self.creationStreams.beginDraining() })
    }

    // MARK: Creating

    /// - Parameter requiresRequestID: whether one without a request_id is wrong.
    func createDevice(
        _ request: V1.CreateDeviceRequest, _ caller: Caller, _ trail: AuditTrail, requiresRequestID: Bool = false
    ) async throws -> V1.CreateDeviceResponse {
        var request = request
        trail.note { [request] in
            $0.userID = request.userID
            $0.changesNothing = request.validateOnly
        }
        (request.userID, request.tenantID) = try caller.owner(userID: request.userID, tenantID: request.tenantID)
        let specification = try self.checked(request, requiresRequestID: requiresRequestID)
        let candidates = try self.candidates(specification)
        if request.validateOnly { return V1.CreateDeviceResponse() }
        let deviceID = DeviceID.mint()
        var new = NewSaga(
            id: self.runtime.mintID(), type: DeviceCreation.type, userID: specification.userID,
            tenantID: specification.tenantID, resourceID: deviceID, requestID: specification.requestID, method: 1,
            requestDigest: self.digest(of: specification.canonicalBytes, requestID: specification.requestID),
            batchID: specification.batchID, request: DeviceRequest(specification, deviceID: deviceID).encoded(),
            secrets: ProviderOptions.encoded(specification.providerOptions), timeout: specification.sagaTimeout)
        new.sites = candidates.map(\.name)
        new.firstDependency = candidates.first.map { ProviderRegistry.dependency(ofSite: $0.name) }
        trail.note { [new] in
            // Known before the saga is: whoever gives up waiting leaves one that goes on.
            $0 = AuditTrail.Subject(sagaID: new.id.rawValue, deviceID: deviceID, userID: specification.userID)
        }
        let (submission, snapshot) = try await self.runtime.start(new, until: specification.milestone)
        trail.note {
            $0.sagaID = submission.id.rawValue
            $0.deviceID = snapshot.resourceID
        }
        try Self.checkEnd(of: snapshot)
        return V1.CreateDeviceResponse.with {
            $0.sagaID = submission.id.rawValue
            $0.device = self.device(creation: snapshot)
        }
    }

    /// - Throws: why a saga that has ended, or is parked, did not complete.
    static func checkEnd(of saga: SagaSnapshot) throws(RPCError) {
        guard let failure = saga.failure, !saga.status.isActive else { return }
        throw .sagaFailed(
            saga.id, step: failure.step, reason: failure.reason, message: failure.message,
            isParked: saga.status == .parked,
            obstacles: saga.steps.filter { $0.status == .compensationFailed }.map { ($0.name, $0.error) })
    }

    /// Where the device may be made, the best site first.
    ///
    /// - Throws: OVERLOADED if it would have to wait until its calls can't come back before its deadline.
    private func candidates(_ specification: CreateDeviceSpecification) throws -> [ProviderSite] {
        guard let kind = ProviderKind(rawValue: Int(specification.provider.rawValue)) else { return [] }
        var delays: [Duration] = []
        let sites = self.providers.candidates(
            kind, spec: DeviceSpec(specification.spec), options: specification.providerOptions
        ) { site in
            let dependency = ProviderRegistry.dependency(ofSite: site.name)
            // One that is full as of a second ago comes last: the database's word counts.
            guard self.providers.hasRoom(site.name, for: DeviceSpec(specification.spec)) else {
                return ProviderRegistry.fullCost
            }
            // More replicas than it takes calls: one of the others will make them. How soon is not known here.
            if self.runtime.share(of: dependency)?.concurrency == 0 {
                delays.append(.zero)
                return ProviderRegistry.elsewhereCost
            }
            let outlook = self.runtime.outlook(dependency, user: specification.userID)
            let wait = outlook?.wait ?? .zero
            // Some time is left for the calls themselves, even if they take none.
            let calls = max(outlook?.calls ?? .zero, specification.sagaTimeout * 0.1)
            let delay = wait > .zero ? wait + calls - specification.sagaTimeout : .zero
            delays.append(delay)
            let cost = delay > .zero ? ProviderRegistry.lateCost : 0
            return wait.inSeconds + max(cost, self.runtime.isDown(dependency) ? ProviderRegistry.downCost : 0)
        }
        if let delay = delays.min(), delay > .zero { throw SagaRuntimeError.overloaded(retryAfter: delay) }
        return sites
    }

    private func checked(
        _ request: V1.CreateDeviceRequest, requiresRequestID: Bool
    ) throws(InvalidRequest) -> CreateDeviceSpecification {
        let rules = CreateDeviceSpecification.Rules(
            defaultProvider: V1.Provider(rawValue: Int32(self.providers.defaultKind.rawValue)),
            providers: self.providers.kinds.map { V1.Provider(rawValue: Int32($0.rawValue)) })
        return try CreateDeviceSpecification(validating: request, rules: rules) { specification in
            var violations: [GoogleRPC.FieldViolation] = []
            if requiresRequestID, specification.requestID.isEmpty {
                violations.append(
                    GoogleRPC.FieldViolation.with {
                        $0.field = "request_id"
                        $0.explanation = "must be set: whoever loses the stream repeats by it"
                    })
            }
            if specification.userID.isEmpty {
                violations.append(
                    GoogleRPC.FieldViolation.with {
                        $0.field = "user_id"
                        $0.explanation = "must be set: the caller is no user to take it from"
                    })
            }
            if let kind = ProviderKind(rawValue: Int(specification.provider.rawValue)) {
                violations += self.providers.violations(
                    kind, spec: DeviceSpec(specification.spec), options: specification.providerOptions
                ).map { violation in
                    GoogleRPC.FieldViolation.with {
                        $0.field = violation.field
                        $0.explanation = violation.description
                    }
                }
            }
            return violations
        }
    }

    /// Digests, not requests, are kept: option values are secrets.
    func digest(of canonicalBytes: [UInt8], requestID: String) -> [UInt8] {
        guard !requestID.isEmpty else { return [] }
        let code = HMAC<SHA256>.authenticationCode(for: canonicalBytes, using: self.digestKey)
        // 128 bits of it: a row less wide, and still no two requests alike.
        return Array(code.prefix(16))
    }

    // MARK: Devices

    private func getDevice(
        _ request: V1.GetDeviceRequest, _ caller: Caller, _ context: RPCContext
    ) async throws -> V1.Device {
        let id = try request.validatedDeviceID()
        let visibility = caller.visibleDevices
        if let record = try await self.devices.device(id) { return try Self.shown(record, visibility) }
        // Known from CreateDevice's answer on, before its record exists too.
        let sagas = try await self.longReads.sagas.pass(Client(context)) {
            try await self.runtime.list(
                SagaFilter(type: DeviceCreation.type, resourceID: id, visibility: visibility), before: nil, limit: 1,
                until: context.deadline
            ).sagas
        }
        // The saga may have written the record between the two looks.
        if sagas.first?.status == .completed, let record = try await self.devices.device(id) {
            return try Self.shown(record, visibility)
        }
        if sagas.first?.isOutline == true { throw SagaRuntimeError.unreadable("the saga of device \(id)") }
        guard let saga = sagas.first, saga.status.isActive || saga.status == .parked,
            let device = self.device(creation: saga)
        else { throw RPCError.notFound(V1.Device.self, id) }
        return device
    }

    /// The device as its creation knows it; `nil` if that can't be read.
    func device(creation saga: SagaSnapshot) -> V1.Device? {
        var device = V1.Device(creation: saga)
        device?.site = self.runtime.site(of: saga)
        return device
    }

    private static func shown(_ record: DeviceRecord, _ visibility: Visibility) throws(RPCError) -> V1.Device {
        guard visibility.includes(userID: record.userID, tenantID: record.tenantID) else {
            throw .notFound(V1.Device.self, record.deviceID)
        }
        return V1.Device(record)
    }

    private func listDevices(
        _ request: V1.ListDevicesRequest, _ caller: Caller, _ context: RPCContext
    ) async throws -> V1.ListDevicesResponse {
        let query = try ListDevicesQuery(validating: request)
        guard let cursor = DeviceCursor(query.page.cursor ?? "") else { throw InvalidRequest.badPageToken }
        let found = try await self.longReads.devices.pass(Client(context)) {
            try await self.devices.list(
                DeviceFilter(query, visibility: caller.visibleDevices), after: cursor.position,
                limit: query.page.size + 1, until: context.deadline)
        }
        var response = V1.ListDevicesResponse()
        var page = Page(found.entries, size: query.page.size)
        while let entry = page.next() {
            let device = self.listed(entry)
            guard page.fits(device) else { break }
            response.devices.append(device)
        }
        if let last = page.last {
            response.nextPageToken = query.page.token(after: DeviceCursor(found.position(of: last)).text)
        } else if let next = found.next {
            response.nextPageToken = query.page.token(after: DeviceCursor(next).text)
        }
        return response
    }

    private func batchGetDevices(
        _ request: V1.BatchGetDevicesRequest, _ caller: Caller, _ context: RPCContext
    ) async throws -> V1.BatchGetDevicesResponse {
        let ids = try request.validatedDeviceIDs()
        let visibility = caller.visibleDevices
        var devices: [String: V1.Device] = [:]
        func read(_ ids: [String]) async throws {
            let found = try await self.longReads.devices.pass(Client(context)) {
                try await self.devices.devices(ids, until: context.deadline)
            }
            for (id, entry) in found { devices[id] = self.listed(entry) }
        }
        try await read(ids)
        // As in getDevice: those that are being created, and those whose creations have just written their records.
        let rest = ids.filter { devices[$0] == nil }
        let sagas =
            rest.isEmpty
            ? [:]
            : try await self.longReads.sagas.pass(Client(context)) {
                try await self.runtime.firstSagas(of: rest, until: context.deadline)
            }
        let creations = sagas.filter { $0.value.type == DeviceCreation.type && $0.value.status != .compensated }
        if !creations.isEmpty { try await read(Array(creations.keys)) }
        for (id, saga) in creations where devices[id] == nil && saga.status != .completed {
            devices[id] = self.device(creation: saga)
        }
        return V1.BatchGetDevicesResponse.with { response in
            for id in ids {
                if let device = devices[id], visibility.includes(userID: device.userID, tenantID: device.tenantID) {
                    response.devices.append(device)
                } else {
                    response.missingDeviceIDs.append(id)
                }
            }
        }
    }

    /// One that can't be read is listed with what can, and without a status.
    private func listed(_ entry: DevicePage.Entry) -> V1.Device {
        switch entry {
        case .device(let record):
            return V1.Device(record)
        case .unreadable(let outline):
            self.logger.log(
                .error, cause: "rpc device row", "a device's row can't be read",
                metadata: ["device_id": "\(outline.deviceID)", "error": "\(outline.problem)"])
            var device = V1.Device()
            device.deviceID = outline.deviceID
            device.name = outline.name
            device.userID = outline.userID
            device.tenantID = outline.tenantID
            device.createdAt = outline.createdAt
            return device
        }
    }

    // MARK: Sagas

    private func getSaga(_ request: V1.GetSagaRequest, _ caller: Caller, _: RPCContext) async throws -> V1.Saga {
        let id = try request.validatedSagaID()
        guard let snapshot = try await self.runtime.snapshot(id), caller.sees(snapshot) else {
            throw RPCError.notFound(V1.Saga.self, id.rawValue)
        }
        return V1.Saga(snapshot, in: self.runtime)
    }

    private func batchGetSagas(
        _ request: V1.BatchGetSagasRequest, _ caller: Caller, _ context: RPCContext
    ) async throws -> V1.BatchGetSagasResponse {
        let ids = try request.validatedSagaIDs()
        let snapshots = try await self.longReads.sagas.pass(Client(context)) {
            try await self.runtime.snapshots(ids, until: context.deadline)
        }
        return V1.BatchGetSagasResponse.with { response in
            for id in ids {
                if let snapshot = snapshots[id], caller.sees(snapshot) {
                    response.sagas.append(V1.Saga(snapshot, in: self.runtime))
                } else {
                    response.missingSagaIDs.append(id.rawValue)
                }
            }
        }
    }

    private func listSagas(
        _ request: V1.ListSagasRequest, _ caller: Caller, _ context: RPCContext
    ) async throws -> V1.ListSagasResponse {
        let query = try ListSagasQuery(validating: request)
        var before: SagaID?
        if let cursor = query.page.cursor {
            guard let id = SagaID(cursor) else { throw InvalidRequest.badPageToken }
            before = id
        }
        let filter = SagaFilter(
            statuses: query.statuses.compactMap { SagaStatus(rawValue: Int($0.rawValue)) }, type: query.type,
            userID: query.userID, resourceID: query.deviceID, batchID: query.batchID,
            requestID: query.requestID, visibility: caller.visibleSagas)
        let found = try await self.longReads.sagas.pass(Client(context)) {
            try await self.runtime.list(filter, before: before, limit: query.page.size + 1, until: context.deadline)
        }
        var response = V1.ListSagasResponse()
        var page = Page(found.sagas, size: query.page.size)
        while let snapshot = page.next() {
            let saga = V1.Saga(snapshot, in: self.runtime)
            guard page.fits(saga) else { break }
            response.sagas.append(saga)
        }
        if let next = page.last?.id ?? found.next { response.nextPageToken = query.page.token(after: next.rawValue) }
        return response
    }

    private func watchSaga(_ request: V1.WatchSagaRequest, _ caller: Caller, _ writer: RPCWriter) async throws {
        let id = try request.validatedSagaID()
        let events = self.runtime.follow(
            id, after: request.afterSequence, visibility: caller.visibleSagas
        ).makeAsyncIterator()
        do {
            // Headers only once the saga is known: an error before is a status of its own.
            try await events.open()
            try writer.sendHeaders()
            while let next = try await events.next() {
                for event in next { try await writer.write(self.encodings.message(of: event, id)) }
            }
        } catch let error as SagaRuntimeError {
            throw RPCError(error, of: id.rawValue)
        }
    }
}

/// The end of a page: its size, or 1 MiB. Knows whether a further page follows.
struct Page<Record> {
    private let records: [Record]
    private let size: Int
    private var taken = 0
    private var bytes = 0

    /// - Parameter records: up to one more than `size`, to see whether there are more.
    init(_ records: [Record], size: Int) {
        self.records = records
        self.size = size
    }

    /// The next record of the page.
    mutating func next() -> Record? {
        guard self.taken < min(self.size, self.records.count) else { return nil }
        return self.records[self.taken]
    }

    /// Whether the page has room for the record that was just looked at; its first always fits.
    mutating func fits(_ message: some ProtobufMessage) -> Bool {
        let size = message.encoded().readableBytes
        guard self.taken == 0 || self.bytes + size <= DeviceService.maximumPageBytes else { return false }
        self.bytes += size
        self.taken += 1
        return true
    }

    /// The page's last record, if another page follows.
    var last: Record? { self.taken > 0 && self.taken < self.records.count ? self.records[self.taken - 1] : nil }
}

extension CreateDeviceSpecification {
    /// How far the caller waits.
    var milestone: Milestone {
        switch self.returnWhen {
        case .accepted: .accepted
        case .finished: .finished
        default: .provisioned
        }
    }
}

extension DeviceFilter {
    init(_ query: ListDevicesQuery, visibility: Visibility) {
        self.init(
            userID: query.userID, statuses: query.statuses.map(\.shortName),
            provider: ProviderKind(rawValue: Int(query.provider.rawValue)), batchID: query.batchID,
            namePrefix: query.namePrefix, tag: query.tag, visibility: visibility)
    }
}

extension DeviceRequest {
    init(_ specification: CreateDeviceSpecification, deviceID: String) {
        self.init(
            deviceID: deviceID, name: specification.name, description: specification.description,
            type: DeviceType(rawValue: Int(specification.type.rawValue)) ?? .phone,
            provider: ProviderKind(rawValue: Int(specification.provider.rawValue)) ?? .simulated,
            userID: specification.userID, tenantID: specification.tenantID, spec: DeviceSpec(specification.spec),
            tags: specification.tags, metadata: specification.metadata)
    }
}
