import ArgumentParser
import DeviceRPC
import RPCTransport

/// Which devices a command is for: those that are named, or those that match.
struct DeviceSelection: ParsableArguments {
    /// How many of them the preview names.
    private static let shown = 5

    @Argument(
        help: "The devices' ids; without them, those that the options select.",
        transform: OptionValues.id("01a23138-27ea-76f9-96db-6f6f2caaed7c"))
    var deviceIDs: [String] = []

    @Option(
        name: .customLong("status"), help: "Select by status: creating, running, stopped, …; may come several times.")
    var statuses: [String] = []

    @Option(name: .customLong("user"), help: "Select this user's.")
    var userID: String?

    @Option(name: .customLong("batch"), help: "Select those that a batch has made, or is making.")
    var batchID: String?

    @Flag(help: "Don't ask before it is done to the selected ones. Needed where there is no terminal.")
    var yes = false

    private var selects: Bool { !self.statuses.isEmpty || self.userID != nil || self.batchID != nil }

    func validate() throws {
        if self.deviceIDs.isEmpty == !self.selects {
            throw ValidationError("Give either devices' ids, or options that select some.")
        }
        for id in self.deviceIDs {
            do throws(InvalidRequest) {
                _ = try V1.GetDeviceRequest.with { $0.deviceID = id }.validatedDeviceID()
            } catch {
                throw ValidationError("'\(id)': \(error.violations.map(\.explanation).joined(separator: ", ")).")
            }
        }
    }

    /// The devices' ids, once whoever selected them agrees.
    ///
    /// - Parameter only: what is left out of a selection.
    func ids(
        _ client: DeviceClient, _ options: ClientOptions, for action: String, only: [V1.DeviceStatus], timeout: Duration
    ) async throws -> [String] {
        if !self.selects { return self.deviceIDs }
        var statuses: [V1.DeviceStatus] = try self.statuses.map { try EnumArgument.value($0, "--status") }
        if statuses.isEmpty { statuses = only }
        let found = try await self.devices(client, statuses, timeout)
        let selected = found.filter { only.isEmpty || only.contains($0.status) }
        let others = found.count - selected.count
        try Confirmation.ask(
            action, selected.count, "device", note: others == 0 ? "" : " (\(others) more match, which it leaves alone)",
            preview: { style in
                DeviceText.devices(Array(selected.prefix(Self.shown)), style: style)
                    + (selected.count > Self.shown ? "… and \(selected.count - Self.shown) more\n" : "")
            }, isGiven: self.yes, options)
        return selected.map(\.deviceID)
    }

    private func devices(
        _ client: DeviceClient, _ statuses: [V1.DeviceStatus], _ timeout: Duration
    ) async throws -> [V1.Device] {
        if self.batchID != nil { return try await self.devicesOfBatch(client, statuses, timeout) }
        return try await self.recordedDevices(client, statuses, timeout)
    }

    /// - Returns: also others' than the batch's, from a server that doesn't know this filter.
    private func recordedDevices(
        _ client: DeviceClient, _ statuses: [V1.DeviceStatus], _ timeout: Duration
    ) async throws -> [V1.Device] {
        var request = V1.ListDevicesRequest()
        request.statuses = statuses
        request.userID = self.userID ?? ""
        request.batchID = self.batchID ?? ""
        request.pageSize = 1000
        var devices: [V1.Device] = []
        repeat {
            let page = try await client.listDevices(request, timeout: timeout)
            devices += page.devices
            request.pageToken = page.nextPageToken
        } while !request.pageToken.isEmpty
        return devices
    }

    /// Devices keep their batch's id; those that have no record yet, and those of older programs, are named by their creations.
    private func devicesOfBatch(
        _ client: DeviceClient, _ statuses: [V1.DeviceStatus], _ timeout: Duration
    ) async throws -> [V1.Device] {
        var devices = try await self.recordedDevices(client, [], timeout).filter { $0.batchID == self.batchID }
        let known = Set(devices.map(\.deviceID))
        var request = V1.ListSagasRequest()
        request.batchID = self.batchID ?? ""
        request.userID = self.userID ?? ""
        request.statuses = [.running, .completed, .compensating, .parked]
        request.pageSize = 1000
        repeat {
            let page = try await client.listSagas(request, timeout: timeout)
            let ids = page.sagas.filter { $0.type == "DEVICE_CREATION" && !known.contains($0.deviceID) }.map(\.deviceID)
            devices += try await Self.get(ids, client, timeout)
            request.pageToken = page.nextPageToken
        } while !request.pageToken.isEmpty
        return devices.filter { statuses.isEmpty || statuses.contains($0.status) }
    }

    /// Those that there are.
    private static func get(
        _ ids: [String], _ client: DeviceClient, _ timeout: Duration
    ) async throws -> [V1.Device] {
        if ids.isEmpty { return [] }
        do {
            return try await client.batchGetDevices(.with { $0.deviceIDs = ids }, timeout: timeout).devices
        } catch let failure as CallFailure where failure.code == .unimplemented {
            // An older server.
            var devices: [V1.Device] = []
            for id in ids {
                do {
                    devices.append(try await client.getDevice(.with { $0.deviceID = id }, timeout: timeout))
                } catch let failure as CallFailure where failure.code == .notFound {
                    // It is gone already.
                }
            }
            return devices
        }
    }
}
