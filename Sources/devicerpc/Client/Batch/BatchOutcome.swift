import DeviceRPC
import FoundationEssentials
import RPCTransport

/// How one request of a batch ended; an entry of the results file.
struct BatchOutcome: Codable, Sendable, Equatable {
    enum Status: String, Codable, Sendable {
        /// The saga goes on by itself (`--return-when accepted` or `provisioned`).
        case started = "STARTED"
        case completed = "COMPLETED"
        /// The saga failed and everything is undone.
        case compensated = "COMPENSATED"
        case parked = "PARKED"
        /// Refused, or no answer: no saga is known to have started.
        case error = "ERROR"
    }

    var status: Status
    var requestID: String
    var sagaID: String
    var deviceID: String
    /// The status code of the call, e.g. `RESOURCE_EXHAUSTED`.
    var code: String
    var reason: String
    var message: String
    var attempt: Int

    enum CodingKeys: String, CodingKey {
        case status
        case requestID = "request_id"
        case sagaID = "saga_id"
        case deviceID = "device_id"
        case code, reason, message, attempt
    }

    init(_ response: V1.CreateDeviceResponse, _ item: BatchPlan.Item) {
        // RETURN_WHEN_FINISHED answers with success only once the device runs.
        self.status = item.request.returnWhen == .finished ? .completed : .started
        self.requestID = item.request.requestID
        self.sagaID = response.sagaID
        self.deviceID = response.device?.deviceID ?? ""
        self.code = "OK"
        self.reason = ""
        self.message = ""
        self.attempt = item.attempt
    }

    init(_ failure: CallFailure, _ item: BatchPlan.Item) {
        self.status = failure.reason == "PARKED" ? .parked : failure.sagaID != nil ? .compensated : .error
        self.requestID = item.request.requestID
        self.sagaID = failure.sagaID ?? ""
        self.deviceID = failure.info["device_id"] ?? ""
        self.code = failure.code.name
        self.reason = failure.reason
        let fields = failure.violations.map { "\($0.field): \($0.explanation)" }
        self.message = ([failure.message] + fields).joined(separator: "; ")
        self.attempt = item.attempt
    }

    /// A new try needs a new request id.
    var isFailure: Bool { self.status == .compensated }

    var isSuccess: Bool { self.status == .completed || self.status == .started }
}

/// The results file: a JSON object of outcomes by name.
enum BatchResults {
    static func encode(_ outcomes: [String: BatchOutcome]) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(outcomes) + Data("\n".utf8)
    }

    static func decode(_ data: Data) throws -> [String: BatchOutcome] {
        try JSONDecoder().decode([String: BatchOutcome].self, from: data)
    }
}
