import SagaRuntime

/// Turns a request into what the engine is asked for. Pure.
enum RedroidContainer {
    /// - Throws: `refused` if the request has what `RedroidProvider.violations` would have named.
    static func body(
        for request: ProviderRequest, configuration: RedroidConfiguration
    ) throws(StepError) -> DockerCreateContainer {
        var violations: [ProviderViolation] = []
        let options = RedroidOptions(request.options, configuration: configuration, violations: &violations)
        guard violations.isEmpty else {
            let fields = violations.map(\.field).joined(separator: ", ")
            throw StepError(.refused, reason: "PROVIDER_REFUSED", message: "not possible with redroid: \(fields)")
        }
        guard let image = AndroidVersion(request.spec.androidVersion).flatMap({ configuration.images[$0] }) else {
            throw StepError(
                .refused, reason: "PROVIDER_REFUSED", message: "no redroid image is configured for this Android version"
            )
        }
        guard let ports = request.ports else {
            throw StepError(.refused, reason: "PROVIDER_REFUSED", message: "a redroid device needs its ports")
        }

        let spec = request.spec
        var arguments = [
            "androidboot.redroid_width=\(spec.widthPixels)",
            "androidboot.redroid_height=\(spec.heightPixels)",
            "androidboot.redroid_dpi=\(spec.dpi)",
        ]
        arguments += options.bootArguments.map { "androidboot.redroid_\($0.name)=\($0.value)" }
        arguments += configuration.extraBootArguments

        let labels = RedroidLabel.labels(installation: configuration.installation, request: request)
        let names = RedroidNames(sagaID: request.sagaID, generation: request.generation)
        let memoryBytes = Self.product(spec.memoryMB, 1 << 20)
        let volumeOptions = configuration.limitsStorage ? ["size": "\(spec.storageMB)m"] : [:]
        return DockerCreateContainer(
            Image: image,
            Cmd: arguments,
            Labels: labels,
            ExposedPorts: [
                RedroidConfiguration.adbContainerPort: .init(), RedroidConfiguration.webRTCContainerPort: .init(),
            ],
            HostConfig: .init(
                Privileged: true,
                // An engine that maps users (userns-remap) refuses privileged containers elsewhere.
                UsernsMode: "host",
                Memory: memoryBytes,
                MemorySwap: memoryBytes,  // the same as Memory: no swap
                NanoCpus: Self.product(spec.cpuCores, 1_000_000_000),
                PortBindings: Self.portBindings(ports, configuration: configuration),
                Mounts: [
                    .init(
                        Type: "volume", Source: names.volume, Target: "/data",
                        VolumeOptions: .init(
                            NoCopy: true, Labels: labels, DriverConfig: .init(Name: "local", Options: volumeOptions)))
                ],
                RestartPolicy: .init(Name: "unless-stopped")))
    }

    static func portBindings(
        _ ports: PortPair, configuration: RedroidConfiguration
    ) -> [String: [DockerCreateContainer.PortBinding]] {
        [
            RedroidConfiguration.adbContainerPort: [
                .init(HostIp: configuration.bindAddress, HostPort: String(ports.adb))
            ],
            RedroidConfiguration.webRTCContainerPort: [
                .init(HostIp: configuration.bindAddress, HostPort: String(ports.webRTC))
            ],
        ]
    }

    /// Numbers come from a stored request: too large is the engine's to refuse, not ours to trap on.
    private static func product(_ left: Int, _ right: Int) -> Int {
        let (result, overflow) = left.multipliedReportingOverflow(by: right)
        return overflow ? Int.max : result
    }
}
