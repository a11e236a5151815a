import Logging
public import SagaRuntime

extension RedroidProvider {
    public func stop(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) {
        let names = try self.names(of: device)
        var call = self.call(request, limit: self.configuration.callLimit)
        try await self.checkEngine(call)
        // Five seconds for Android to go down by itself, then the engine kills it.
        let response = try await call.act(.post, "/containers/\(names.container)/stop", query: [("t", "5")])
        switch response.status {
        case 200..<300, 304: return  // 304: it was stopped already
        case 404:
            try await self.checkAbsence(call)
            throw StepError(.notFound, reason: "PROVIDER_REFUSED", message: "the container does not exist")
        default: throw call.failure(response, doing: "stop container")
        }
    }

    public func destroy(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) -> Undone {
        let names = try self.names(of: device)
        var call = self.call(request, limit: self.configuration.callLimit)
        if let port = device.attributes["adb_port"].flatMap(Int.init), (1...65535).contains(port) {
            try request.authorize()
            await self.disconnect(port: port, until: call.deadline)
        }
        let wasThere = try await self.remove(names, orID: try? self.containerID(of: device), &call)
        // Containers are removed by name: whoever had one has it no more, and that there is none must be the engine's word.
        try await self.checkAbsence(call)
        return wasThere ? .undone : .nothingFound
    }

    public func discard(_ device: ProviderDevice, _ request: ProviderRequest) async throws(StepError) {
        let names = try self.names(of: device)
        let id = try self.containerID(of: device)
        var call = self.call(request, limit: self.configuration.callLimit)
        _ = try await self.remove(names, id: id, &call)
        try await self.checkAbsence(call)
    }

    /// Removes the container of this id, and its volume unless another container has the name, and so the volume, by
    /// now. False if that is so.
    func remove(_ names: RedroidNames, id: String, _ call: inout RedroidCall) async throws(StepError) -> Bool {
        if id != names.volume {  // the id of a volume that was found alone
            _ = try await self.removeUntilGone("/containers/\(id)", query: [("v", "1"), ("force", "1")], &call)
        }
        while true {
            let path = "/volumes/\(names.volume)"
            let response = try await call.act(.delete, path)
            switch response.status {
            case 200..<300, 404: return true
            case 409: break
            default: throw call.failure(response, doing: "remove")
            }
            // Some container uses it: no engine removes a volume from under one, so that asking first is not needed.
            let holder = try await call.ask("/containers/\(names.container)/json")
            if holder.status == 200, let found = holder.decoded(as: DockerInspected.self)?.Id, found != id {
                return false
            }
            try await call.pause(.milliseconds(100))
        }
    }

    /// Removes container and volume by name, and returns once both are gone. True if there was any. For an undo, after
    /// which nobody makes anything under the name again.
    ///
    /// - Parameter id: the container's, which it keeps when somebody renames it; it would hold its volume for ever.
    func remove(
        _ names: RedroidNames, orID id: String? = nil, _ call: inout RedroidCall
    ) async throws(StepError) -> Bool {
        let options = [("v", "1"), ("force", "1")]
        var container = try await self.removeUntilGone("/containers/\(names.container)", query: options, &call)
        if let id, id != names.volume {  // the id of a volume that was found alone
            container = try await self.removeUntilGone("/containers/\(id)", query: options, &call) || container
        }
        // Without force: with it, an engine says "done" of a volume that it doesn't know.
        let volume = try await self.removeUntilGone("/volumes/\(names.volume)", query: [], &call)
        return container || volume
    }

    /// Deletes one resource until the engine says that it is not there. 409 is an engine that is still busy with it: a
    /// removal under way, a volume whose container is not quite gone.
    private func removeUntilGone(
        _ path: String, query: [(String, String)], _ call: inout RedroidCall
    ) async throws(StepError) -> Bool {
        var wasThere = false
        while true {
            let response = try await call.act(.delete, path, query: query)
            switch response.status {
            case 404:
                return wasThere
            case 200..<300:
                return true
            case 409:
                wasThere = true
                call.mayHaveActed = true
                try await call.pause(.milliseconds(100))
            default:
                call.mayHaveActed = call.mayHaveActed || response.status >= 500
                throw call.failure(response, doing: "remove")
            }
        }
    }

    /// Makes the adb server forget the device, so that the next one on this port starts afresh. Best effort: a
    /// connection that stays is found out and dropped when the next device boots.
    private func disconnect(port: Int, until deadline: ContinuousClock.Instant) async {
        let limit = min(deadline, .now + .seconds(2))
        do {
            try await self.adb.disconnect(self.serial(adbPort: port), until: limit)
        } catch {
            self.logger.debug("adb server was not told of a device's end", metadata: ["error": "\(error)"])
        }
    }

    /// The device's name at the adb server.
    func serial(adbPort: Int) -> String {
        let host = self.configuration.adbTargetHost
        return host.contains(":") ? "[\(host)]:\(adbPort)" : "\(host):\(adbPort)"
    }

    /// Checked like the names, since it ends up in a path too.
    func containerID(of device: ProviderDevice) throws(StepError) -> String {
        let id = device.externalID
        guard let first = id.utf8.first, first != UInt8(ascii: "."), id.utf8.count <= 128,
            RedroidNames.isPlain(id)
        else {
            throw StepError(
                .undecidable, reason: "PROVIDER_REFUSED", message: "the stored device does not say its container's id")
        }
        return id
    }

    func names(of device: ProviderDevice) throws(StepError) -> RedroidNames {
        guard let names = RedroidNames(of: device) else {
            throw StepError(
                .undecidable, reason: "PROVIDER_REFUSED", message: "the stored device does not name its container")
        }
        return names
    }
}
