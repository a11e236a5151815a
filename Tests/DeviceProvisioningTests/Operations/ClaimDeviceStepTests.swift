@testable import SagaRuntime
import Synchronization
import Testing

@testable import DeviceProvisioning

/// How the way to a device is cleared.
@Suite struct ClaimDeviceStepTests {
    /// What there is, as the step sees it.
    private final class Scene: DeviceSagas {
        struct State {
            var now = Timestamp(milliseconds: 1_730_188_800_000)
            var device: DeviceRecord?
            var sagas: [SagaID: SagaSnapshot] = [:]
            var creation: SagaSnapshot?
            var hasCommands = false
            var cancelled: [SagaID] = []
            var isAway = false
        }
        struct Away: Error {}
        let state = Mutex(State())

        var now: Timestamp { self.state.withLock { $0.now } }
        func device(_ id: String) async throws -> DeviceRecord? {
            try self.state.withLock {
                if $0.isAway { throw Away() }
                return $0.device
            }
        }
        func saga(_ id: SagaID) async throws -> SagaSnapshot? { self.state.withLock { $0.sagas[id] } }
        func creation(of deviceID: String) async throws -> SagaSnapshot? { self.state.withLock { $0.creation } }
        func cancel(_ id: SagaID, for deletion: SagaID) async throws {
            self.state.withLock { $0.cancelled.append(id) }
        }
        func hasCommands(_ id: SagaID) async throws -> Bool { self.state.withLock { $0.hasCommands } }
    }

    private let view = FlushFixture.view(.simulated)
    private let scene = Scene()

    private func saga(_ status: SagaStatus, type: String = DeviceCreation.type) -> SagaSnapshot {
        var saga = SagaSnapshot(
            id: self.view.sagaID,
            birth: SagaBirth(
                type: type, definitionVersion: 1, deadline: self.view.createdAt, requestID: "", request: [],
                hasSecrets: false),
            userID: "u", tenantID: "", resourceID: self.view.resourceID, batchID: "", time: self.view.createdAt,
            stepNames: ["A"])
        saga.status = status
        return saga
    }

    private func look(
        _ output: String? = nil, for operation: DeviceOperation = .deletion
    ) async throws(StepError) -> Execution {
        let step = ClaimDeviceStep(operation: operation, sagas: self.scene)
        let context = StepContext(
            sagaID: self.view.sagaID, step: DeviceStep.claimDevice, attempt: 1, generation: 1,
            request: self.view.request, outputs: output.map { [DeviceStep.claimDevice: $0] } ?? [:], secrets: [],
            isInDoubt: false, deadline: self.view.createdAt, authorize: { () throws(StepError) in })
        return output == nil ? try await step.execute(context) : try await step.poll(context)
    }

    private func output(_ execution: Execution) -> String {
        switch execution {
        case .done(let output): output
        case .pending(let job): job.output
        }
    }

    @Test func whatIsGoneIsGone() async throws {
        #expect(try await self.look() == .done(output: ClaimedWay.gone.output))
        for status in [SagaStatus.completed, .compensated] {
            self.scene.state.withLock { $0.creation = self.saga(status) }
            #expect(try await self.look() == .done(output: ClaimedWay.gone.output))
        }
    }

    @Test(arguments: [SagaStatus.running, .compensating, .parked])
    func aCreationIsToldToStopOnceAndWaitedFor(_ status: SagaStatus) async throws {
        self.scene.state.withLock {
            $0.creation = self.saga(status)
            $0.hasCommands = true
        }
        let first = try await self.look()
        guard case .pending(let job) = first else { return #expect(Bool(false)) }
        #expect(job.pollAfter == .milliseconds(50))
        self.scene.state.withLock { $0.now = $0.now + .seconds(20) }
        guard case .pending(let again) = try await self.look(job.output) else { return #expect(Bool(false)) }
        // The same is written once, and asked for less and less often.
        #expect(again.output == job.output && again.pollAfter == .seconds(5))
        #expect(self.scene.state.withLock { $0.cancelled } == [self.view.sagaID])
    }

    @Test func whatParksParksTheDeletion() async throws {
        let held = ClaimedWay.held(by: self.view.sagaID.rawValue, since: 1).output
        self.scene.state.withLock { $0.creation = self.saga(.parked) }
        await #expect {
            _ = try await self.look(held)
        } throws: { error in
            let error = error as? StepError
            return error?.errorClass == .undecidable && error?.reason == "BLOCKED_BY_SAGA"
                && error?.message.contains(self.view.sagaID.rawValue) == true
        }
    }

    @Test func aDeletionIsWaitedForAndNeverStopped() async throws {
        self.scene.state.withLock { $0.creation = self.saga(.running, type: DeviceDeletion.type) }
        guard case .pending(let job) = try await self.look() else { return #expect(Bool(false)) }
        #expect(self.scene.state.withLock { $0.cancelled }.isEmpty)
        self.scene.state.withLock { $0.creation = self.saga(.parked, type: DeviceDeletion.type) }
        await #expect(throws: StepError.self) { _ = try await self.look(job.output) }
    }

    @Test(arguments: [DeviceOperation.start, .stop, .restart])
    func othersGiveWay(_ operation: DeviceOperation) async {
        for (status, reason) in [(SagaStatus.running, "DEVICE_BUSY"), (.compensated, "DEVICE_STATE")] {
            self.scene.state.withLock { $0.creation = self.saga(status) }
            await #expect {
                _ = try await self.look(for: operation)
            } throws: { error in
                let error = error as? StepError
                return error?.errorClass == .refused && error?.reason == reason
            }
        }
        #expect(self.scene.state.withLock { $0.cancelled }.isEmpty)
    }

    @Test func whatCannotBeSeenIsAskedForAgain() async {
        self.scene.state.withLock { $0.isAway = true }
        await #expect {
            _ = try await self.look()
        } throws: { ($0 as? StepError)?.errorClass == .unavailable }
    }

    @Test(arguments: [ClaimedWay.free, .held(by: "saga_1", since: 7), .over("saga_1"), .gone])
    func theWayIsReadAsItWasWritten(_ way: ClaimedWay) {
        #expect(ClaimedWay(output: way.output) == way)
    }
}
