import SagaRuntime
import Testing

@testable import DeviceProvisioning

@Suite struct DeviceCreationTests {
    private static let definition = DeviceCreation.definition(
        version: 1,
        providers: ProviderRegistry([], default: .simulated), quota: nil)

    @Test func stepsAreTheContracts() {
        #expect(
            Self.definition.steps.map(\.name) == [
                "ALLOCATE_PORTS", "CREATE_PROVIDER_DEVICE", "CREATE_DATABASE_RECORD", "REPORT_QUOTA_USAGE",
                "START_DEVICE",
            ])
        #expect(Self.definition.type == "DEVICE_CREATION" && Self.definition.version == 1)
        #expect(Self.definition.steps[Self.definition.provisionedStep].name == "REPORT_QUOTA_USAGE")
    }

    @Test func undoGoesFromTheNewestStepBack() {
        let names = Self.definition.steps.map(\.name)
        for (index, step) in Self.definition.steps.enumerated() {
            // Only what comes later can be waited for, so that there is no circle.
            for name in step.undoAfter { #expect((names.firstIndex(of: name) ?? 0) > index) }
        }
        #expect(Self.definition.steps[0].undoAfter == ["CREATE_PROVIDER_DEVICE"])
        #expect(Self.definition.steps[3].undoAfter.isEmpty)
    }

    @Test func anUnknownProviderIsUnavailableAndAnUnreadableRequestParks() async {
        let step = CreateProviderDeviceStep(providers: ProviderRegistry([], default: .simulated))
        let view = FlushFixture.view(.huaweiCPH)
        for (request, expected) in [(view.request, StepError.Class.unavailable), ([1, 2, 3], .undecidable)] {
            let context = StepContext(
                sagaID: view.sagaID, step: DeviceStep.createProviderDevice, attempt: 1, generation: 1, request: request,
                outputs: [:], secrets: [], isInDoubt: false, deadline: view.createdAt,
                authorize: { () throws(StepError) in })
            do throws(StepError) {
                _ = try await step.execute(context)
                Issue.record("executed")
            } catch {
                #expect(error.errorClass == expected)
            }
        }
    }
}
