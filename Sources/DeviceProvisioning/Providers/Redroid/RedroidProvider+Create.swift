import FoundationEssentials
public import SagaRuntime

extension RedroidProvider {
    public func create(_ request: ProviderRequest) async throws(StepError) -> ProviderDevice {
        let container = try RedroidContainer.body(for: request, configuration: self.configuration)
        let names = RedroidNames(sagaID: request.sagaID, generation: request.generation)
        var call = self.call(request, limit: self.configuration.callLimit)
        try await self.checkEngine(call)
        let id = try await self.ensureContainer(container, names, request, &call)
        try await self.ensureStarted(names, id: id, &call)
        return self.device(names, id: id, generation: request.generation, isUsable: true, labels: container.Labels)
    }

    /// Makes the container with its volume, or adopts what an earlier attempt left. Returns its id.
    private func ensureContainer(
        _ container: DockerCreateContainer, _ names: RedroidNames, _ request: ProviderRequest,
        _ call: inout RedroidCall
    ) async throws(StepError) -> String {
        let body: [UInt8]
        do {
            body = Array(try JSONEncoder().encode(container))
        } catch {
            throw StepError(.refused, reason: "PROVIDER_REFUSED", message: "the request can't be put as JSON")
        }
        while true {
            let response = try await call.act(
                .post, "/containers/create", query: [("name", names.container)], body: body)
            switch response.status {
            case 200..<300:
                call.mayHaveActed = true
                guard let id = response.decoded(as: DockerCreated.self)?.Id else {
                    throw call.unavailable("the Docker engine made a container and didn't say which")
                }
                return id
            case 409:
                // From here on nothing is definite any more but the removal of what has the name.
                call.mayHaveActed = true
                if let id = try await self.adopt(names, request, &call) { return id }
                // The name is reserved by a container that is being made or removed right now, or made way.
                try await call.pause(.milliseconds(100))
            case 400..<500 where !call.mayHaveActed:
                // The engine looks before it makes anything: a no leaves nothing to clear away.
                throw Self.refusal(response, image: container.Image, call)
            default:
                try await self.cleanUp(names, &call)
                throw Self.refusal(response, image: container.Image, call)
            }
        }
    }

    /// 404 may be about a network or a volume driver too: the engine's own words tell, and the image is named only where
    /// it is what's missing.
    private static func refusal(_ response: DockerResponse, image: String, _ call: RedroidCall) -> StepError {
        guard response.status == 404, response.message.lowercased().contains("image") else {
            return call.failure(response, doing: "create container")
        }
        return StepError(
            .refused, reason: "PROVIDER_REFUSED",
            message: "image \(image) is not on the Docker engine; an operator has to pull it")
    }

    /// The name is taken. Ours, with the right ports: returns its id. Ours, with ports that an earlier grant named:
    /// removes it and returns `nil`. Gone meanwhile: `nil`. A stranger's: throws.
    private func adopt(
        _ names: RedroidNames, _ request: ProviderRequest, _ call: inout RedroidCall
    ) async throws(StepError) -> String? {
        let response = try await call.ask("/containers/\(names.container)/json")
        if response.status == 404 { return nil }
        guard response.status == 200, let found = response.decoded(as: DockerInspected.self), let id = found.Id else {
            throw call.failure(response, doing: "look at container")
        }
        guard
            RedroidLabel.isOurs(
                found.Config?.Labels, installation: self.configuration.installation, sagaID: request.sagaID,
                generation: request.generation)
        else {
            throw StepError(
                .refused, reason: "PROVIDER_REFUSED", message: "a container that is not ours has the device's name")
        }
        let bound = found.HostConfig?.PortBindings?.compactMapValues { $0 } ?? [:]
        let wanted = request.ports.map { RedroidContainer.portBindings($0, configuration: self.configuration) }
        if bound == wanted { return id }
        try await self.cleanUp(names, id: id, &call)
        return nil
    }

    /// Starts the container. If it can't run, takes it away again, so that the failure is definite.
    ///
    /// By its id: a request that was held up must not act on what a successor has made under the name since.
    private func ensureStarted(
        _ names: RedroidNames, id: String, _ call: inout RedroidCall
    ) async throws(StepError) {
        let response = try await call.act(.post, "/containers/\(id)/start")
        switch response.status {
        case 200..<300, 304:
            return  // 304: it runs already
        case 404:
            try await self.cleanUp(names, id: id, &call)
            throw StepError(
                .unavailable, reason: "PROVIDER_UNAVAILABLE", message: "the new container vanished before its start")
        default:
            try await self.cleanUp(names, id: id, &call)
            if Self.saysPortTaken(response) {
                throw StepError(
                    .conflict(redoing: "ALLOCATE_PORTS"), reason: "PORT_TAKEN",
                    message: "a host port of the device is in use by something else")
            }
            throw call.failure(response, doing: "start container")
        }
    }

    /// Removes what this generation left. Returns only if nothing of it is there any more; then what failed before is
    /// definite again.
    ///
    /// - Parameter id: the container's, where it is known.
    private func cleanUp(
        _ names: RedroidNames, id: String? = nil, _ call: inout RedroidCall
    ) async throws(StepError) {
        call.mayHaveActed = true
        if let id {
            guard try await self.remove(names, id: id, &call) else {
                throw call.unavailable("another container has the device's name by now")
            }
        } else {
            _ = try await self.remove(names, &call)
        }
        try await self.checkAbsence(call)
        call.mayHaveActed = false
    }

    /// An engine has no status of its own for a taken host port, only words: Docker's own bookkeeping says
    /// "port is already allocated", the kernel "address already in use".
    static func saysPortTaken(_ response: DockerResponse) -> Bool {
        let message = response.message
        return response.status >= 400
            && (message.contains("port is already allocated") || message.contains("address already in use"))
    }

    func device(
        _ names: RedroidNames, id: String, generation: Int, isUsable: Bool, labels: [String: String]
    ) -> ProviderDevice {
        var attributes = [RedroidNames.attribute: names.container]
        attributes["adb_port"] = labels[RedroidLabel.adbPort]
        attributes["webrtc_port"] = labels[RedroidLabel.webRTCPort]
        return ProviderDevice(
            externalID: String(id.prefix(128)), host: self.configuration.ports.name, generation: generation,
            isUsable: isUsable, attributes: attributes)
    }
}
