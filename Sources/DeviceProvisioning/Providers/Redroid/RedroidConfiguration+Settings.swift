extension RedroidConfiguration {
    /// Every key that `init(installation:adbPorts:webRTCPorts:setting:)` reads.
    public static let keys = [
        "DOCKER_HOST", "REDROID_IMAGE", "REDROID_GPU_MODE", "ADB_HOST", "ADB_PORT", "DEVICERPC_ADB_AUTOSTART",
        "DEVICERPC_REDROID_BIND_ADDRESS", "DEVICERPC_REDROID_ADVERTISED_HOST", "DEVICERPC_REDROID_ADB_TARGET",
        "DEVICERPC_REDROID_PORT_HOST", "DEVICERPC_REDROID_BOOT_TIMEOUT", "DEVICERPC_REDROID_FPS",
        "DEVICERPC_REDROID_BOOT_ARGS", "DEVICERPC_REDROID_STORAGE_QUOTA",
    ]

    /// Reads the provider's settings; an absent or empty value means the default.
    ///
    /// - Parameters:
    ///   - adbPorts: ADB_PORT_START to ADB_PORT_END, inclusive.
    ///   - webRTCPorts: WEBRTC_PORT_START to WEBRTC_PORT_END, inclusive.
    ///   - setting: the value of a key, from wherever configuration comes.
    public init(
        installation: String, adbPorts: ClosedRange<Int>, webRTCPorts: ClosedRange<Int>,
        setting: (String) -> String?
    ) throws(ProviderConfigurationError) {
        func value(_ key: String) -> String? {
            guard let value = setting(key), !value.isEmpty else { return nil }
            return value
        }
        guard !installation.isEmpty else {
            throw ProviderConfigurationError(key: "installation", problem: "must not be empty")
        }
        let engine = try DockerEndpoint(dockerHost: value("DOCKER_HOST") ?? DockerEndpoint.defaultHost)
        let bindAddress = value("DEVICERPC_REDROID_BIND_ADDRESS") ?? "127.0.0.1"
        let reachable = Self.reachableHost(bindAddress: bindAddress, engine: engine)
        self.init(
            installation: installation, engine: engine,
            ports: PortHost(
                name: value("DEVICERPC_REDROID_PORT_HOST") ?? engine.host ?? "localhost", adb: adbPorts,
                webRTC: webRTCPorts))
        self.bindAddress = bindAddress
        self.advertisedHost = value("DEVICERPC_REDROID_ADVERTISED_HOST") ?? reachable
        self.adbTargetHost = value("DEVICERPC_REDROID_ADB_TARGET") ?? reachable
        if let images = value("REDROID_IMAGE") { self.images = try Self.images(images) }
        self.adbServerHost = value("ADB_HOST") ?? "127.0.0.1"
        self.adbServerPort = try Self.number(value("ADB_PORT"), key: "ADB_PORT", in: 1...65535) ?? 5037
        let adbIsLocal = ["127.0.0.1", "localhost", "::1"].contains(self.adbServerHost)
        self.startsADBServer =
            try Self.flag(value("DEVICERPC_ADB_AUTOSTART"), key: "DEVICERPC_ADB_AUTOSTART") ?? adbIsLocal
        if self.startsADBServer, !adbIsLocal {
            throw ProviderConfigurationError(
                key: "DEVICERPC_ADB_AUTOSTART", problem: "true is possible only where ADB_HOST is this machine")
        }
        if let seconds = try Self.number(
            value("DEVICERPC_REDROID_BOOT_TIMEOUT"), key: "DEVICERPC_REDROID_BOOT_TIMEOUT", in: 1...3600)
        {
            self.bootLimit = .seconds(seconds)
        }
        if let fps = try Self.number(
            value("DEVICERPC_REDROID_FPS"), key: "DEVICERPC_REDROID_FPS", in: Self.framesPerSecondRange)
        {
            self.framesPerSecond = fps
        }
        if let mode = value("REDROID_GPU_MODE") {
            guard Self.gpuModes.contains(mode) else {
                throw ProviderConfigurationError(key: "REDROID_GPU_MODE", problem: "must be auto, host or guest")
            }
            self.gpuMode = mode
        }
        if let arguments = value("DEVICERPC_REDROID_BOOT_ARGS") {
            self.extraBootArguments = arguments.split(separator: " ").map(String.init)
            guard self.extraBootArguments.allSatisfy({ $0.contains("=") }) else {
                throw ProviderConfigurationError(
                    key: "DEVICERPC_REDROID_BOOT_ARGS", problem: "must be name=value pairs, separated by spaces")
            }
        }
        self.limitsStorage =
            try Self.flag(value("DEVICERPC_REDROID_STORAGE_QUOTA"), key: "DEVICERPC_REDROID_STORAGE_QUOTA") ?? false
    }

    /// Where something bound on `bindAddress` of the engine's host can be reached from here.
    private static func reachableHost(bindAddress: String, engine: DockerEndpoint) -> String {
        let isWildcard = ["0.0.0.0", "::", ""].contains(bindAddress)
        return isWildcard ? engine.host ?? "127.0.0.1" : bindAddress
    }

    /// `11=image,13=image`, or one image whose tag begins with the version that it is: an image that quietly stood for
    /// every version would give callers another Android than they asked for.
    private static func images(_ text: String) throws(ProviderConfigurationError) -> [AndroidVersion: String] {
        let problem = ProviderConfigurationError(
            key: "REDROID_IMAGE",
            problem: "must be version=image pairs, separated by commas (11=redroid/redroid:11.0.0-latest), or one "
                + "image whose tag begins with its Android version")
        var images: [AndroidVersion: String] = [:]
        for entry in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name: Substring
            let version: AndroidVersion?
            if parts.count == 2 {
                name = parts[1]
                version = AndroidVersion(String(parts[0]))
            } else {
                name = entry
                version = Self.versionInTag(of: name)
            }
            guard let version, Self.isImageReference(name), images[version] == nil else { throw problem }
            images[version] = String(name)
        }
        return images
    }

    private static func versionInTag(of image: Substring) -> AndroidVersion? {
        guard let colon = image.lastIndex(of: ":"), !image[colon...].contains("/") else { return nil }
        let digits = image[image.index(after: colon)...].prefix { $0.isNumber || $0 == "." }
        return AndroidVersion(digits.split(separator: ".").prefix(2).joined(separator: "."))
    }

    private static func isImageReference(_ name: Substring) -> Bool {
        !name.isEmpty && name.utf8.count <= 255
            && name.utf8.allSatisfy { byte in
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                    || "._-/:@".utf8.contains(byte)
            }
    }

    private static func number(
        _ text: String?, key: String, in range: ClosedRange<Int>
    ) throws(ProviderConfigurationError) -> Int? {
        guard let text else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw ProviderConfigurationError(
                key: key, problem: "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func flag(_ text: String?, key: String) throws(ProviderConfigurationError) -> Bool? {
        switch text {
        case nil: return nil
        case "true": return true
        case "false": return false
        default: throw ProviderConfigurationError(key: key, problem: "must be true or false")
        }
    }
}
