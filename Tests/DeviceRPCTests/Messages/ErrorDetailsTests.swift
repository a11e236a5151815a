import DeviceRPC
import NIOCore
import RPCTransport
import SagaRuntime
import Testing

@Suite struct ErrorDetailsTests {
    static let sagaID = SagaID("saga_1730188800000_7k2m9x4q1c")

    @Test func invalidRequestsNameEveryField() throws {
        let invalid = InvalidRequest([
            .init(field: "name", explanation: "must have 1 to 100 characters, has 0"),
            .init(field: "spec.dpi", explanation: "must be 120 to 640, or 0 for 240; is 1"),
        ])
        let error = RPCError(invalid)
        #expect(error.code == .invalidArgument)
        #expect(error.message == "name: must have 1 to 100 characters, has 0 (and 1 more)")
        #expect(error.errorInfo?.reason == "INVALID_FIELD")
        #expect(error.errorInfo?.domain == "device.cloudphone")
        #expect(error.fieldViolations == invalid.violations)
        // grpc-status-details-bin repeats code and message.
        let status = try GoogleRPC.Status(decoding: ByteBuffer(bytes: error.details))
        #expect(status.code == 3)
        #expect(status.message == error.message)
        #expect(
            status.details.map(\.typeURL) == [
                "type.googleapis.com/google.rpc.ErrorInfo", "type.googleapis.com/google.rpc.BadRequest",
            ])
        #expect(error.retryAdvice == .unsaid)
    }

    @Test func overloadSaysWhenToComeBack() {
        let error = RPCError.overloaded(retryAfter: .milliseconds(250))
        #expect(error.code == .resourceExhausted)
        #expect(error.errorInfo?.reason == "OVERLOADED")
        #expect(error.metadata.first("grpc-retry-pushback-ms") == "250")
        #expect(error.retryAdvice == .after(.milliseconds(250)))
        #expect(
            error.status?.detail(GoogleRPC.RetryInfo.self)?.retryDelay
                == ProtobufDuration(seconds: 0, nanos: 250_000_000))
    }

    /// The header of DeviceService in the contract.
    @Test(
        arguments: [
            ("QUOTA_REFUSED", .resourceExhausted), ("PORTS_EXHAUSTED", .resourceExhausted),
            ("PROVIDER_REFUSED", .invalidArgument), ("PROVIDER_UNAVAILABLE", .aborted), ("QUOTA_UNAVAILABLE", .aborted),
            ("BOOT_FAILED", .aborted), ("TIMED_OUT", .aborted), ("CANCELLED", .aborted), ("SOMETHING_NEW", .aborted),
        ] as [(String, RPCCode)])
    func failedSagasThatAreUndone(reason: String, code: RPCCode) throws {
        let id = try #require(Self.sagaID)
        let error = RPCError.sagaFailed(id, step: "START_DEVICE", reason: reason, message: "no", isParked: false)
        #expect(error.code == code)
        #expect(error.errorInfo?.reason == reason)
        #expect(error.errorInfo?.metadata == ["saga_id": id.rawValue, "step": "START_DEVICE"])
        #expect(error.retryAdvice == .never)
        #expect(error.metadata.first("grpc-retry-pushback-ms") == "-1")
    }

    @Test func parkedSagasNeedAnOperator() throws {
        let id = try #require(Self.sagaID)
        let error = RPCError.sagaFailed(
            id, step: "REPORT_QUOTA_USAGE", reason: "TIMED_OUT", message: "too late", isParked: true,
            obstacles: [("REPORT_QUOTA_USAGE", "it may have been counted")])
        #expect(
            error.message
                == "\(id) is parked and needs an operator: REPORT_QUOTA_USAGE could not be undone "
                + "(it may have been counted); it failed in REPORT_QUOTA_USAGE: too late")
        #expect(error.code == .failedPrecondition)
        #expect(error.errorInfo?.reason == "PARKED")
        #expect(error.errorInfo?.metadata["saga_id"] == id.rawValue)
        #expect(error.errorInfo?.metadata["step"] == "REPORT_QUOTA_USAGE")
        #expect(error.retryAdvice == .never)
    }

    @Test func notFoundNamesTheResource() {
        let error = RPCError.notFound(V1.Saga.self, "saga_x")
        #expect(error.code == .notFound)
        #expect(error.message == "no such saga: saga_x")
        let resource = error.status?.detail(GoogleRPC.ResourceInfo.self)
        #expect(resource?.resourceType == "cloudphone.device.v1.Saga")
        #expect(resource?.resourceName == "saga_x")
    }

    @Test func undecodableBytesAreInternal() {
        #expect {
            try V1.Device(decoding: ByteBuffer(bytes: [0x0a, 1, 0xff]))
        } throws: { error in
            guard let error = error as? MessageDecodingError else { return false }
            return RPCError(error).code == .internal
        }
    }

    @Test func longMessagesFitIntoTrailers() throws {
        let error = RPCError(.databaseUnavailable, String(repeating: "☺", count: 5000))
        #expect(error.message.utf8.count <= 1536 / 3)
        #expect(error.message.hasSuffix("☺…"))
        #expect(RPCError(.databaseUnavailable, String(repeating: "x", count: 5000)).message.utf8.count == 1024)
        #expect(RPCError(.databaseUnavailable, String(repeating: "x", count: 1024)).message.hasSuffix("x"))
        #expect(RPCError(.databaseUnavailable, String(repeating: "%", count: 512)).message.hasSuffix("%"))
        #expect(error.details.count < 2048)
        let worst = V1.CreateDeviceRequest.with { request in
            for index in 0..<1000 { request.metadata[String(repeating: "😈", count: 70) + "\(index)"] = "" }
        }
        #expect {
            try CreateDeviceSpecification(validating: worst, rules: .init(defaultProvider: .simulated, providers: []))
        } throws: { error in
            guard let error = error as? InvalidRequest else { return false }
            // With base64 and percent encoding beside it, below 8 KiB.
            return RPCError(error).details.count * 4 / 3 + RPCError(error).message.utf8.count * 3 < 8 * 1024
        }
    }

    @Test func foreignErrorsAreNotTakenForOurs() {
        #expect(RPCError(.unavailable, "no").errorInfo == nil)
        #expect(RPCError(.unavailable, "no", details: [0xff]).status == nil)
        let foreign = GoogleRPC.Status.with {
            $0.details = [PackedMessage(packing: GoogleRPC.ErrorInfo.with { $0.domain = "other" })]
        }
        #expect(RPCError(.unavailable, "no", details: Array(foreign.encoded().readableBytesView)).errorInfo == nil)
    }
}
