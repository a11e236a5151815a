import NIOCore
import SagaRuntime
import Testing

@testable import DeviceRPC

/// The limits on request messages are low, and yet above whatever is valid.
@Suite struct RequestLimitTests {
    @Test func largestValidCreateDeviceFits() throws {
        // Characters of four bytes, the longest there are.
        func text(_ count: Int) -> String { String(repeating: "😈", count: count) }
        let entries = Dictionary(
            uniqueKeysWithValues: (0..<32).map { (text(62) + ($0 < 10 ? "0\($0)" : "\($0)"), text(256)) })
        let request = V1.CreateDeviceRequest.with {
            $0.requestID = String(repeating: "~", count: 64)
            $0.batchID = String(repeating: "~", count: 64)
            $0.name = text(100)
            $0.description = text(500)
            $0.userID = text(256)
            $0.tenantID = text(256)
            $0.tags = Array(repeating: text(50), count: 10)
            $0.metadata = entries
            $0.providerOptions = entries
        }
        _ = try CreateDeviceSpecification(validating: request, rules: ValidationTests.rules)
        let size = request.encoded().readableBytes
        #expect(size > 80_000)
        #expect(size < DeviceService.maximumCreateDeviceBytes)
    }

    @Test func largestValidBatchGetSagasFits() throws {
        let request = V1.BatchGetSagasRequest.with {
            $0.sagaIDs = Array(repeating: "saga_1730188800000_7k2m9x4q1c", count: 1000)
        }
        _ = try request.validatedSagaIDs()
        #expect(request.encoded().readableBytes < DeviceService.maximumBatchGetSagasBytes)
    }

    @Test func largestValidBatchGetDevicesFits() throws {
        let request = V1.BatchGetDevicesRequest.with {
            $0.deviceIDs = Array(repeating: "01a23138-27ea-76f9-96db-6f6f2caaed7c", count: 1000)
        }
        _ = try request.validatedDeviceIDs()
        #expect(request.encoded().readableBytes < DeviceService.maximumBatchGetSagasBytes)
    }

    @Test func largestOfTheOthersFit() {
        let text = String(repeating: "😈", count: 1000)
        let resume = V1.ResumeSagaRequest.with { $0.reason = text }
        let list = V1.ListSagasRequest.with {
            $0.userID = String(repeating: "😈", count: 256)
            $0.type = String(repeating: "😈", count: 64)
            $0.pageToken = String(repeating: "x", count: 1024)
        }
        #expect(resume.encoded().readableBytes + 100 < DeviceService.maximumRequestBytes)
        #expect(list.encoded().readableBytes + 1000 < DeviceService.maximumRequestBytes)
    }
}
