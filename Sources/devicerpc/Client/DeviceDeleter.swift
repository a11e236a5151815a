import DeviceRPC
import RPCTransport

/// Deletes devices at a bounded rate, and says of each what came of it.
struct DeviceDeleter: Sendable {
    /// Calls at once: a deletion may have to wait for a site that is away.
    private static let parallel = 64

    let client: DeviceClient
    let options: ClientOptions
    /// Deletions a second.
    let rate: Int
    /// What is left alone unless it is one of these; empty: nothing is.
    let only: [V1.DeviceStatus]
    let timeout: Duration
    /// Of each: device id and request id are filled in.
    let request: V1.DeleteDeviceRequest

    /// - Throws: `Exit`, unless all are deleted, or left alone.
    func run(_ ids: [String]) async throws {
        try await EachOfMany.run(ids, rate: self.rate, parallel: Self.parallel) { try await self.run($0) }
    }

    private func run(_ id: String) async throws -> CommandStatus {
        do {
            if !self.only.isEmpty {
                let device = try await self.client.getDevice(.with { $0.deviceID = id }, timeout: self.timeout)
                guard self.only.contains(device.status) else {
                    self.write(id, "left alone (\(device.status.shortName))", ["\"leftAlone\":true"])
                    return .success
                }
            }
            let response = try await self.delete(id)
            let word = self.request.returnWhen == .accepted ? "to be deleted" : "deleted"
            self.write(id, "\(word)  \(response.sagaID)", ["\"sagaId\":\(JSONText.quoted(response.sagaID))"])
            return .success
        } catch let failure as CallFailure {
            let reason = failure.reason.isEmpty ? failure.code.name : failure.reason
            self.write(id, "\(reason): \(failure.message)", [String(failure.json().dropFirst().dropLast(2))])
            return failure.status
        }
    }

    /// Deletes one device. Repeated until the server can take it, under one request id.
    func delete(_ id: String) async throws -> V1.DeleteDeviceResponse {
        var request = self.request
        request.deviceID = id
        if request.requestID.isEmpty { request.requestID = RandomID.make(prefix: "cli") }
        return try await Retry.run(within: self.timeout) { [request] remaining in
            try await self.client.deleteDevice(request, timeout: remaining)
        }
    }

    private func write(_ id: String, _ text: String, _ members: [String]) {
        switch self.options.output {
        case .json: StandardOutput.write("{\"deviceId\":\(JSONText.quoted(id)),\(members.joined(separator: ","))}\n")
        case .text: StandardOutput.write(Printable.text("\(id)  \(text)") + "\n")
        }
    }
}
