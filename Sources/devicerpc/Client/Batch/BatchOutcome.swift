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
        /// Refused, or no answer: no saga is known to have started, or one goes on.
        case error = "ERROR"
        /// The request is right; nothing was started.
        case valid = "VALID"
    }

    var status: Status
    var requestID: String
    var sagaID: String
    var deviceID: String
    /// How to reach it; `nil` unless it runs.
    var connection: Connection?
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
        case connection, code, reason, message, attempt
    }

    struct Connection: Codable, Sendable, Equatable {
        var host: String
        /// 0: no such port.
        var adbPort: UInt32
        var webrtcPort: UInt32
        var attributes: [String: String]

        enum CodingKeys: String, CodingKey {
            case host
            case adbPort = "adb_port"
            case webrtcPort = "webrtc_port"
            case attributes
        }

        init(_ connection: V1.Connection) {
            self.host = connection.host
            self.adbPort = connection.adbPort
            self.webrtcPort = connection.webrtcPort
            self.attributes = connection.attributes
        }
    }

    init(_ response: V1.CreateDeviceResponse, _ item: BatchPlan.Item) {
        // RETURN_WHEN_FINISHED answers with success only once the device runs.
        self.status =
            item.request.validateOnly ? .valid : item.request.returnWhen == .finished ? .completed : .started
        self.requestID = item.request.requestID
        self.sagaID = response.sagaID
        self.deviceID = response.device?.deviceID ?? ""
        self.connection = response.device?.connection.map(Connection.init)
        self.code = "OK"
        self.reason = ""
        self.message = ""
        self.attempt = item.attempt
    }

    init(_ failure: CallFailure, _ item: BatchPlan.Item) {
        let isUndone = failure.sagaID != nil && failure.code != .unavailable
        self.status = failure.reason == "PARKED" ? .parked : isUndone ? .compensated : .error
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

    var isSuccess: Bool { [.completed, .started, .valid].contains(self.status) }

    /// What it failed for; empty: it did not.
    var failure: String { self.isSuccess ? "" : self.reason.isEmpty ? self.code : self.reason }

    /// What is to be kept of two runs: a device that was made stays made, whatever a later run was told.
    func followed(by later: BatchOutcome) -> BatchOutcome {
        self.status == .completed && later.status != .completed ? self : later
    }
}

/// The results file: a JSON object of outcomes by name, one a line, the failed ones last.
enum BatchResults {
    static func encode(_ outcomes: [String: BatchOutcome]) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let lines = try Self.failedLast(outcomes).map { name, outcome in
            "  \(JSONText.quoted(name)): " + String(decoding: try encoder.encode(outcome), as: UTF8.self)
        }
        return Data("{\n\(lines.joined(separator: ",\n"))\n}\n".utf8)
    }

    static func failedLast(_ outcomes: [String: BatchOutcome]) -> [(name: String, outcome: BatchOutcome)] {
        outcomes.map { (name: $0.key, outcome: $0.value) }.sorted { one, other in
            one.outcome.isSuccess == other.outcome.isSuccess ? one.name < other.name : one.outcome.isSuccess
        }
    }

    static func decode(_ data: Data) throws -> [String: BatchOutcome] {
        try JSONDecoder().decode([String: BatchOutcome].self, from: data)
    }
}
