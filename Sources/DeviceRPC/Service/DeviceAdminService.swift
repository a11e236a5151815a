public import DeviceProvisioning
public import Logging
public import RPCTransport
public import SagaRuntime

/// `cloudphone.device.v1.DeviceAdminService`: what operators do to sagas, and who holds which ports.
public struct DeviceAdminService: MethodMaking {
    public static let name = "cloudphone.device.v1.DeviceAdminService"
    /// How long a call waits for its command to be obeyed.
    static let patience: Duration = .seconds(20)

    let runtime: SagaRuntime
    let ports: PortStore
    let audit: AuditLog
    let logger: Logger
    /// One page of ports at a time: the connections are there for all that reads.
    private let portReads: FairGate<Client>

    /// - Parameter heldBack: told of each call that has to wait for its turn.
    public init(
        runtime: SagaRuntime, ports: PortStore, audit: AuditLog,
        heldBack: @escaping @Sendable (RPCRefusal) -> Void, logger: Logger
    ) {
        self.runtime = runtime
        self.ports = ports
        self.audit = audit
        self.logger = logger
        self.portReads = FairGate(permits: 1) { heldBack(.tooManyReads) }
    }

    public var service: RPCService {
        RPCService(
            name: Self.name,
            methods: [
                self.changing("CompensateSaga", self.compensateSaga), self.changing("ResumeSaga", self.resumeSaga),
                self.unary("ListPorts", self.listPorts),
            ])
    }

    // MARK: Commands

    private func compensateSaga(
        _ request: V1.CompensateSagaRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.Saga {
        let id = try request.validatedSagaID()
        let saga = try await self.saga(id, caller, trail, reason: request.reason)
        if saga.status == .completed {
            throw RPCError(.sagaCompleted, "\(id) is completed: there is nothing to stop", of: saga)
        }
        if Self.isUndone(saga) { return V1.Saga(saga, in: self.runtime) }
        return try await self.give(.compensate, to: saga, by: caller, request.reason, context)
    }

    private func resumeSaga(
        _ request: V1.ResumeSagaRequest, _ caller: Caller, _ context: RPCContext, _ trail: AuditTrail
    ) async throws -> V1.Saga {
        let id = try request.validatedSagaID()
        let saga = try await self.saga(id, caller, trail, reason: request.reason)
        guard saga.status == .parked || saga.isQuarantined && !request.skipStep else {
            throw Self.notParked(saga)
        }
        return try await self.give(
            request.skipStep ? .skip : .resume, to: saga, by: caller, request.reason, context)
    }

    /// - Throws: NOT_FOUND.
    private func saga(
        _ id: SagaID, _ caller: Caller, _ trail: AuditTrail, reason: String
    ) async throws -> SagaSnapshot {
        trail.note { $0.reason = reason }
        guard let saga = try await self.runtime.snapshot(id), caller.sees(saga) else {
            throw RPCError.notFound(V1.Saga.self, id.rawValue)
        }
        trail.note {
            $0 = AuditTrail.Subject(
                sagaID: id.rawValue, deviceID: saga.resourceID, userID: saga.userID, reason: reason)
        }
        return saga
    }

    /// Gives a saga a command, and answers it as it is once the command is consumed, or nobody has come to it in time.
    ///
    /// - Parameter saga: as the caller knows it, more or less: that is what the command is meant for.
    private func give(
        _ kind: SagaCommand.Kind, to saga: SagaSnapshot, by caller: Caller, _ reason: String, _ context: RPCContext
    ) async throws -> V1.Saga {
        let rest = context.deadline.map { $0 - .now } ?? .seconds(3600)
        let outcome: CommandOutcome
        do {
            outcome = try await self.runtime.command(
                kind, to: saga.id, by: caller.name, reason: reason, sequence: saga.lastSequence,
                within: min(Self.patience, rest * 0.75))
        } catch SagaRuntimeError.databaseUnavailable {
            throw RPCError(
                .databaseUnavailable,
                "the command may have been given: the database can't be reached, or an older server runs beside this one; "
                    + "look at the saga, and try again")
        }
        guard let now = try await self.runtime.snapshot(saga.id) else { throw SagaRuntimeError.notFound }
        if let refusal = Self.refusal(of: kind, outcome, now) { throw refusal }
        return V1.Saga(now, in: self.runtime)
    }

    /// Why a command has no effect, if its issuer doesn't have what it wishes for.
    static func refusal(of kind: SagaCommand.Kind, _ outcome: CommandOutcome, _ saga: SagaSnapshot) -> RPCError? {
        switch outcome {
        case .pending, .consumed(.done), .consumed(.noEffect):
            return nil
        case .consumed(.notParked):
            return Self.notParked(saga)
        case .consumed(.pastPivot):
            return RPCError(.pastPivot, "\(saga.id) can only go forward: it is past its pivot", of: saga)
        case .consumed(.tooLate), .over:
            if kind == .compensate, Self.isUndone(saga) { return nil }
            return RPCError(.tooLate, "\(saga.id) is \(saga.status.name) since before the command was obeyed", of: saga)
        case .consumed(.unknownKind):
            return RPCError(.unimplemented, "the server that drives \(saga.id) doesn't know this command", of: saga)
        }
    }

    /// It is, or will be; also of what can't be read.
    private static func isUndone(_ saga: SagaSnapshot) -> Bool {
        saga.isTurnedBack || saga.status == .compensating || saga.status == .compensated
    }

    private static func notParked(_ saga: SagaSnapshot) -> RPCError {
        let text =
            switch saga.status {
            case .parked:
                "\(saga.id) is not parked where its step may be skipped: that takes an undo that failed, or a step past the pivot"
            case .completed, .compensated: "\(saga.id) is over: \(saga.status.name)"
            case .running, .compensating: "\(saga.id) is not parked: it is \(saga.status.name), and goes on by itself"
            }
        return RPCError(.sagaNotParked, text, of: saga)
    }

    // MARK: Ports

    private func listPorts(
        _ request: V1.ListPortsRequest, _: Caller, _ context: RPCContext
    ) async throws -> V1.ListPortsResponse {
        let query = try ListPortsQuery(validating: request)
        guard let cursor = PortCursor(query.page.cursor ?? "") else { throw InvalidRequest.badPageToken }
        let found = try await self.portReads.pass(Client(context)) {
            try await self.ports.list(
                host: query.host, after: cursor, limit: query.page.size + 1, until: context.deadline)
        }
        var response = V1.ListPortsResponse()
        var page = Page(found, size: query.page.size)
        while let port = page.next() {
            let message = V1.AllocatedPort(port)
            guard page.fits(message) else { break }
            response.ports.append(message)
        }
        if let last = page.last { response.nextPageToken = query.page.token(after: PortCursor(last).text) }
        return response
    }
}

extension RPCError {
    /// What a saga as it is doesn't allow.
    fileprivate init(_ reason: ErrorReason, _ message: String, of saga: SagaSnapshot) {
        self.init(reason, message, metadata: ["saga_status": saga.status.name])
    }
}

extension V1.AllocatedPort {
    init(_ port: AllocatedPort) {
        self.init()
        self.host = port.host
        self.kind = port.kind.rawValue
        self.port = UInt32(clamping: port.port)
        self.deviceID = port.deviceID
        self.sagaID = port.sagaID
    }
}
