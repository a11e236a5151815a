import RPCTransport
import Testing

@testable import DeviceRPC
@testable import SagaRuntime

/// What operators are answered, by what became of their command and what the saga is then.
@Suite struct DeviceAdminServiceTests {
    private func saga(_ status: SagaStatus, isTurnedBack: Bool = false) throws -> SagaSnapshot {
        let birth = SagaBirth(
            type: "TEST", definitionVersion: 1, deadline: Timestamp(milliseconds: 1000), requestID: "", request: [],
            hasSecrets: false)
        var saga = SagaSnapshot(
            id: try #require(SagaID("saga_1730188800000_7k2m9x4q1c")), birth: birth, userID: "u", tenantID: "",
            resourceID: "", batchID: "", time: Timestamp(milliseconds: 0), stepNames: ["A"])
        saga.status = status
        saga.isTurnedBack = isTurnedBack
        return saga
    }

    private func reason(
        _ kind: SagaCommand.Kind, _ outcome: CommandOutcome, _ saga: SagaSnapshot
    ) -> String? {
        let error = DeviceAdminService.refusal(of: kind, outcome, saga)
        #expect(error?.errorInfo?.metadata["saga_id"] == nil, "no saga has failed")
        #expect(error == nil || error?.errorInfo?.metadata["saga_status"] == saga.status.name)
        return error?.errorInfo?.reason
    }

    /// Whoever has what they wish for is answered the saga.
    @Test func whatIsAsWishedIsNoRefusal() throws {
        for outcome in [CommandOutcome.pending, .consumed(.done), .consumed(.noEffect)] {
            for kind in [SagaCommand.Kind.compensate, .resume, .skip] {
                #expect(self.reason(kind, outcome, try self.saga(.parked)) == nil)
            }
        }
        for outcome in [CommandOutcome.over, .consumed(.tooLate)] {
            #expect(self.reason(.compensate, outcome, try self.saga(.compensated, isTurnedBack: true)) == nil)
            #expect(self.reason(.compensate, outcome, try self.saga(.parked, isTurnedBack: true)) == nil)
        }
    }

    @Test func whatIsNotSaysWhy() throws {
        for outcome in [CommandOutcome.over, .consumed(.tooLate)] {
            #expect(self.reason(.compensate, outcome, try self.saga(.completed)) == "TOO_LATE")
            #expect(self.reason(.resume, outcome, try self.saga(.compensated, isTurnedBack: true)) == "TOO_LATE")
        }
        #expect(self.reason(.compensate, .consumed(.pastPivot), try self.saga(.running)) == "PAST_PIVOT")
        for status in SagaStatus.allCases {
            let error = DeviceAdminService.refusal(of: .skip, .consumed(.notParked), try self.saga(status))
            #expect(error?.code == .failedPrecondition && error?.errorInfo?.reason == "SAGA_NOT_PARKED")
        }
    }
}
