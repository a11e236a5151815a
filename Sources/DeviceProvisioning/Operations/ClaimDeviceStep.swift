import SagaRuntime

/// What stands between a saga and its device, as CLAIM_DEVICE's call has found it.
enum ClaimedWay: Equatable {
    /// Nobody holds it.
    case free
    /// A saga holds it, which was told to stop, if it is one that gives way; since when it is waited for.
    case held(by: String, since: Int64)
    /// The saga that holds it has ended.
    case over(String)
    /// There is no row, and no creation under way that would write one.
    case gone

    /// - Parameter output: `nil` where nothing was looked at yet.
    init(output: String?) {
        guard let output, let value = try? JSONValue(parsing: output) else {
            self = .free
            return
        }
        if let holder = value["holder"]?.string {
            self = .held(by: holder, since: value["since"]?.integer.map { Int64($0) } ?? 0)
        } else if let holder = value["over"]?.string {
            self = .over(holder)
        } else {
            self = value["gone"]?.bool == true ? .gone : .free
        }
    }

    var output: String {
        JSONWriter.object(reserving: 96) { writer in
            switch self {
            case .free: break
            case .held(let holder, let since):
                writer.member("holder", holder)
                writer.member("since", since)
            case .over(let holder): writer.member("over", holder)
            case .gone: writer.member("gone", true)
            }
        }
    }
}

/// CLAIM_DEVICE's call: it clears the way for a claim that was refused.
///
/// For a deletion whoever holds the device is told to stop, unless it is a deletion itself, and waited for; a holder that
/// parks parks this saga too. Other operations give way to whoever holds it.
struct ClaimDeviceStep: RemoteStep {
    let operation: DeviceOperation
    let sagas: any DeviceSagas

    func isNeeded(request: [UInt8], outputs: [String: String]) -> Bool { true }

    func execute(_ context: StepContext) async throws(StepError) -> Execution { try await self.look(context) }
    func poll(_ context: StepContext) async throws(StepError) -> Execution { try await self.look(context) }

    private func look(_ context: StepContext) async throws(StepError) -> Execution {
        guard let deviceID = (try? DeviceRequest(decoding: context.request))?.deviceID else {
            throw StepError(
                .undecidable, reason: DeviceFailureReason.unreadable, message: "the saga's stored request is unreadable"
            )
        }
        do {
            guard let holder = try await self.holder(of: deviceID) else {
                guard self.operation.wins else { throw self.operation.refusal("the device is gone") }
                return .done(output: ClaimedWay.gone.output)
            }
            switch holder {
            case .nobody(let status):
                guard self.operation.suits(status) else { throw self.operation.refusal("the device is \(status.name)") }
                return .done(output: ClaimedWay.free.output)
            case .saga(let id, let saga):
                // Only what has ended is not there any more.
                guard let saga, !saga.status.isTerminal else {
                    return .done(output: ClaimedWay.over(id.rawValue).output)
                }
                guard self.operation.wins else { throw DeviceOperation.busy(saga) }
                return try await self.wait(for: saga, context)
            }
        } catch let error as StepError {
            throw error
        } catch {
            throw StepError(
                .unavailable, reason: "DATABASE_UNAVAILABLE", message: "can't see who holds the device: \(error)")
        }
    }

    private enum Holder {
        case nobody(DeviceStatus)
        case saga(SagaID, SagaSnapshot?)
    }

    /// - Returns: `nil`: there is no device, and none is being made.
    private func holder(of deviceID: String) async throws -> Holder? {
        if let device = try await self.sagas.device(deviceID) {
            guard let id = SagaID(device.holder) else { return .nobody(device.status) }
            return .saga(id, try await self.sagas.saga(id))
        }
        guard let creation = try await self.sagas.creation(of: deviceID), !creation.status.isTerminal else {
            return nil
        }
        return .saga(creation.id, creation)
    }

    private func wait(for holder: SagaSnapshot, _ context: StepContext) async throws -> Execution {
        let now = self.sagas.now
        var since = now.microseconds
        let isDeletion = holder.type == DeviceDeletion.type
        if case .held(by: holder.id.rawValue, let before) = ClaimedWay(output: context.outputs[context.step]) {
            since = before
            let isHeard = isDeletion ? true : try await !self.sagas.hasCommands(holder.id)
            if holder.status == .parked, isHeard {
                throw StepError(
                    .undecidable, reason: "BLOCKED_BY_SAGA",
                    message:
                        "\(holder.id.rawValue) (\(holder.type)) holds the device and is parked; resolve it, then resume this one"
                )
            }
        } else if !isDeletion {
            try await self.sagas.cancel(holder.id, for: context.sagaID)
        }
        let waited = max(now.microseconds - since, 0)
        return .pending(
            PendingJob(
                output: ClaimedWay.held(by: holder.id.rawValue, since: since).output,
                note: "waits until \(holder.id.rawValue) (\(holder.type)) has ended",
                pollAfter: min(max(.microseconds(waited / 4), .milliseconds(50)), .seconds(10))))
    }

    /// Looking again changes nothing, and a holder that was told to stop twice stops once.
    var isRepeatable: Bool { true }
    func resolve(_ context: StepContext) async throws(StepError) -> Resolution { .repeatable }

    /// What is claimed is given back in a flush.
    func compensate(_ context: StepContext) async throws(StepError) -> Undone { .nothingFound }
    func discard(_ context: StepContext, output: String?) async throws(StepError) {}
    func settleTime(request: [UInt8], secrets: [UInt8]) -> Duration { .zero }
}
