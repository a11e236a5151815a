import DeviceRPC
import RPCTransport

/// Does something to devices at a bounded rate, and says of each what came of it.
struct DeviceOperator: Sendable {
    /// Calls at once: a call may have to wait for a site that is away.
    private static let parallel = 64

    /// What is filled in for each device.
    struct Call: Sendable {
        var deviceID: String
        var requestID: String
        var timeout: Duration
    }

    let client: DeviceClient
    let options: ClientOptions
    /// Calls a second.
    let rate: Int
    /// Repeated until the server can take it, for so long.
    let timeout: Duration
    /// What a device is left alone for unless it is one of these; empty: nothing.
    var only: [V1.DeviceStatus] = []
    /// Of one device; empty: one is made up for each.
    var requestID = ""
    /// What is said of one that it was done to, e.g. `deleted`.
    let word: String
    /// Does it; returns the saga's id.
    let body: @Sendable (Call) async throws -> String

    /// - Throws: `Exit`, unless it was done to all, or they were left alone.
    func run(_ ids: [String]) async throws {
        try await EachOfMany.run(ids, rate: self.rate, parallel: Self.parallel) { try await self.run($0) }
    }

    private func run(_ id: String) async throws -> CommandStatus {
        do {
            if !self.only.isEmpty {
                let device = try await self.client.getDevice(.with { $0.deviceID = id }, timeout: self.timeout)
                guard self.only.contains(device.status) else {
                    self.write(id, "left alone (\(device.status.shortName))", "\"leftAlone\":true")
                    return .success
                }
            }
            let sagaID = try await self.call(id)
            self.write(id, "\(self.word)  \(sagaID)", "\"sagaId\":\(JSONText.quoted(sagaID))")
            return .success
        } catch let failure as CallFailure {
            let reason = failure.reason.isEmpty ? failure.code.name : failure.reason
            self.write(id, "\(reason): \(failure.message)", String(failure.json().dropFirst().dropLast(2)))
            return failure.status
        }
    }

    /// Does it to one device, under one request id.
    func call(_ id: String) async throws -> String {
        let requestID = self.requestID.isEmpty ? RandomID.make(prefix: "cli") : self.requestID
        return try await Retry.run(within: self.timeout) { remaining in
            try await self.body(Call(deviceID: id, requestID: requestID, timeout: remaining))
        }
    }

    private func write(_ id: String, _ text: String, _ members: String) {
        switch self.options.output {
        case .json: StandardOutput.write("{\"deviceId\":\(JSONText.quoted(id)),\(members)}\n")
        case .text: StandardOutput.write(Printable.text("\(id)  \(text)") + "\n")
        }
    }
}
