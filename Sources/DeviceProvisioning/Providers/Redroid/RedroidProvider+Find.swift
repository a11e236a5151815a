import FoundationEssentials
public import SagaRuntime

extension RedroidProvider {
    public func find(_ request: ProviderRequest) async throws(StepError) -> [ProviderDevice] {
        let call = self.call(request, limit: self.configuration.callLimit)
        let found = try await self.list(call, saga: request.sagaID.rawValue).map(\.device)
        try await self.checkAbsence(call)
        return found.sorted { $0.generation < $1.generation }
    }

    public func listOwned() async throws(StepError) -> [OwnedDevice] {
        let call = RedroidCall(
            docker: self.docker, deadline: .now + self.configuration.callLimit, authorize: { () throws(StepError) in },
            secrets: [], complain: self.complain)
        return try await self.list(call, saga: nil)
    }

    /// Containers, and volumes that have no container, of this installation.
    private func list(_ call: RedroidCall, saga: String?) async throws(StepError) -> [OwnedDevice] {
        var labels = ["\(RedroidLabel.installation)=\(self.configuration.installation)"]
        if let saga { labels.append("\(RedroidLabel.saga)=\(saga)") }
        guard let encoded = try? JSONEncoder().encode(["label": labels]) else {
            throw StepError(.unavailable, reason: "PROVIDER_UNAVAILABLE", message: "the filter can't be put as JSON")
        }
        let filters = ("filters", String(decoding: encoded, as: UTF8.self))

        // Volumes first: a device that is created in between is then seen as a container, one that is removed in between
        // as a volume, and never as nothing.
        let volumes = try await call.ask("/volumes", query: [filters])
        guard volumes.status == 200, let listed = volumes.decoded(as: DockerVolumeList.self) else {
            throw call.failure(volumes, doing: "list volumes")
        }
        let containers = try await call.ask("/containers/json", query: [("all", "1"), filters])
        guard containers.status == 200, let found = containers.decoded(as: [DockerListedContainer].self) else {
            throw call.failure(containers, doing: "list containers")
        }

        var owned: [OwnedDevice] = []
        var volumesInUse: Set<String> = []
        for container in found {
            guard let id = container.Id, let labels = container.Labels, let names = self.names(in: labels) else {
                continue
            }
            volumesInUse.insert(names.volume)
            // An engine binds ports at the start: one that never ran is not the result of a create.
            let isUsable = container.State == "running"
            owned.append(self.owned(names, id: id, isUsable: isUsable, labels: labels))
        }
        for volume in listed.Volumes ?? [] {
            guard let name = volume.Name, let labels = volume.Labels, let names = self.names(in: labels),
                name == names.volume, !volumesInUse.contains(name)
            else { continue }
            owned.append(self.owned(names, id: name, isUsable: false, labels: labels))
        }
        return owned
    }

    /// The names that labels of ours imply.
    private func names(in labels: [String: String]) -> RedroidNames? {
        guard labels[RedroidLabel.installation] == self.configuration.installation,
            let saga = labels[RedroidLabel.saga].flatMap({ SagaID($0) }),
            let generation = labels[RedroidLabel.generation].flatMap({ Int($0) }), generation >= 0
        else { return nil }
        return RedroidNames(sagaID: saga, generation: generation)
    }

    private func owned(
        _ names: RedroidNames, id: String, isUsable: Bool, labels: [String: String]
    ) -> OwnedDevice {
        OwnedDevice(
            device: self.device(
                names, id: id, generation: labels[RedroidLabel.generation].flatMap { Int($0) } ?? 0,
                isUsable: isUsable, labels: labels),
            sagaID: labels[RedroidLabel.saga] ?? "", deviceID: labels[RedroidLabel.device] ?? "",
            userID: labels[RedroidLabel.user] ?? "")
    }
}
