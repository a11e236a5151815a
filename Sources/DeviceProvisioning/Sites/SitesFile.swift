import FoundationEssentials
import SagaRuntime
import Yams

/// One site as the file has it.
public struct SiteConfiguration: Sendable {
    public enum Content: Sendable {
        case simulated(SimulatedConfiguration)
        case redroid(RedroidConfiguration)
    }

    public var name: String
    public var limits: SiteLimits
    public var content: Content

    public init(name: String, limits: SiteLimits = SiteLimits(), content: Content) {
        self.name = name
        self.limits = limits
        self.content = content
    }

    public var kind: ProviderKind {
        switch self.content {
        case .simulated: .simulated
        case .redroid: .redroid
        }
    }
}

/// The file that DEVICERPC_SITES names: YAML, or JSON, which is YAML (docs/sites.md).
public struct SitesFile: Sendable {
    public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
        /// From 1; `nil`: the file as a whole.
        public var line: Int?
        public var text: String

        public var description: String { self.line.map { "line \($0): \(self.text)" } ?? self.text }
    }

    /// A thousand sites have about 300 KB.
    public static let maximumBytes = 1 << 20

    public var sites: [SiteConfiguration] = []

    /// - Parameter installation: labels what is made at providers.
    /// - Returns: the sites that can be read, and everything that is wrong with the others.
    public static func read(_ text: String, installation: String) -> (file: SitesFile, problems: [Problem]) {
        var reader = SitesFileReader(installation: installation)
        reader.read(text)
        return (SitesFile(sites: reader.sites), reader.problems.sorted { $0.line ?? 0 < $1.line ?? 0 })
    }
}

/// Goes through the file and gathers what is wrong with it, each with its line.
private struct SitesFileReader {
    let installation: String
    var sites: [SiteConfiguration] = []
    var problems: [SitesFile.Problem] = []
    private var lineOfName: [String: Int] = [:]
    private var lineOfEngine: [DockerEndpoint: Int] = [:]

    init(installation: String) { self.installation = installation }

    private static let common = ["name", "provider", "concurrency", "calls-per-second", "devices", "memory-mb"]
    private static let ports = ["adb-ports", "webrtc-ports"]
    private static let simulated = ["latency", "boot", "hosts", "options"]
    /// By the settings of a single engine that they are named after.
    private static let redroid = [
        "docker-host": "DOCKER_HOST", "image": "REDROID_IMAGE", "gpu-mode": "REDROID_GPU_MODE",
        "fps": "DEVICERPC_REDROID_FPS", "boot-args": "DEVICERPC_REDROID_BOOT_ARGS",
        "boot-timeout": "DEVICERPC_REDROID_BOOT_TIMEOUT", "storage-quota": "DEVICERPC_REDROID_STORAGE_QUOTA",
        "bind-address": "DEVICERPC_REDROID_BIND_ADDRESS", "advertised-host": "DEVICERPC_REDROID_ADVERTISED_HOST",
        "adb-host": "ADB_HOST", "adb-port": "ADB_PORT", "adb-autostart": "DEVICERPC_ADB_AUTOSTART",
        "adb-target": "DEVICERPC_REDROID_ADB_TARGET",
    ]

    mutating func read(_ text: String) {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            self.problems.append(Self.problem(error))
            return
        }
        guard let mapping = root?.mapping else {
            return self.complain(root, "must be a mapping with the key sites")
        }
        for (key, _) in mapping where key.string != "sites" {
            self.complain(key, "\(Self.quoted(key)): no such key (allowed: sites)")
        }
        guard let sites = mapping["sites"]?.sequence, !sites.isEmpty else {
            return self.complain(mapping["sites"] ?? root, "sites: must be a list with one site at least")
        }
        for site in sites { self.read(site: site) }
    }

    private mutating func read(site node: Node) {
        guard let mapping = node.mapping else { return self.complain(node, "a site must be a mapping") }
        let before = self.problems.count
        let name = self.name(mapping, of: node)
        guard let provider = mapping["provider"] else {
            return self.complain(node, "provider: missing (allowed: simulated, redroid)")
        }
        let limits = SiteLimits(
            concurrency: self.integer(mapping, "concurrency", in: 1...100_000),
            callsPerSecond: self.number(mapping, "calls-per-second"),
            devices: self.integer(mapping, "devices", in: 1...10_000_000),
            memoryMB: self.integer(mapping, "memory-mb", in: 1...2_000_000_000))
        let content: SiteConfiguration.Content?
        switch provider.string {
        case "simulated":
            self.checkKeys(mapping, Self.common + Self.ports + Self.simulated)
            content = self.simulated(mapping, name: name ?? "")
        case "redroid":
            self.checkKeys(mapping, Self.common + Self.ports + Self.redroid.keys)
            content = self.redroid(mapping, name: name ?? "", of: node)
        default:
            return self.complain(provider, "provider: no such provider (allowed: simulated, redroid)")
        }
        guard let name, let content, self.problems.count == before else { return }
        self.sites.append(SiteConfiguration(name: name, limits: limits, content: content))
    }

    private mutating func name(_ mapping: Node.Mapping, of site: Node) -> String? {
        guard let node = mapping["name"], let name = node.string, SiteName.isValid(name) else {
            self.complain(mapping["name"] ?? site, "name: must be \(SiteName.allowed)")
            return nil
        }
        if let line = self.lineOfName[name] {
            self.complain(node, "name: \(name) is the site at line \(line)")
            return nil
        }
        self.lineOfName[name] = node.mark?.line ?? 0
        return name
    }

    private mutating func simulated(_ mapping: Node.Mapping, name: String) -> SiteConfiguration.Content? {
        var configuration = SimulatedConfiguration()
        configuration.site = name
        configuration.pool = "\(ProviderKind.simulated.name)/\(name)"
        if let latency = self.duration(mapping, "latency") { configuration.behaviour.latency = latency }
        if let boot = self.duration(mapping, "boot") { configuration.behaviour.boot = boot }
        if let node = mapping["options"] {
            do throws(ProviderConfigurationError) {
                try configuration.apply(options: node.string ?? "", key: "options")
            } catch {
                self.complain(node, "options: \(error.problem)")
            }
        }
        let (adb, webRTC) = self.portRanges(mapping)
        if let count = self.integer(mapping, "hosts", in: 1...10_000) {
            configuration.hosts = (1...count).map { PortHost(name: "\(name)-\($0)", adb: adb, webRTC: webRTC) }
        }
        return .simulated(configuration)
    }

    private mutating func redroid(
        _ mapping: Node.Mapping, name: String, of site: Node
    ) -> SiteConfiguration.Content? {
        var settings = ["DEVICERPC_REDROID_PORT_HOST": name]
        for (key, setting) in Self.redroid {
            guard let node = mapping[key] else { continue }
            if key == "image", let images = node.mapping {
                settings[setting] = images.map { "\($0.key.string ?? "")=\($0.value.string ?? "")" }
                    .joined(separator: ",")
            } else if let text = node.string {
                settings[setting] = text
            } else {
                self.complain(node, "\(key): must be a single value")
            }
        }
        let (adb, webRTC) = self.portRanges(mapping)
        do throws(ProviderConfigurationError) {
            let configuration = try RedroidConfiguration(
                installation: self.installation, adbPorts: adb, webRTCPorts: webRTC, setting: { settings[$0] })
            let place = mapping["docker-host"] ?? site
            if let line = self.lineOfEngine[configuration.engine] {
                self.complain(place, "docker-host: \(configuration.engine) is the engine of the site at line \(line)")
            }
            self.lineOfEngine[configuration.engine] = place.mark?.line ?? 0
            return .redroid(configuration)
        } catch {
            let key = Self.redroid.first { $0.value == error.key }?.key ?? error.key
            self.complain(mapping[key] ?? site, "\(key): \(error.problem)")
            return nil
        }
    }

    // MARK: Values

    private mutating func integer(_ mapping: Node.Mapping, _ key: String, in range: ClosedRange<Int>) -> Int? {
        guard let node = mapping[key] else { return nil }
        guard let number = node.string.flatMap({ Int($0) }), range.contains(number) else {
            self.complain(node, "\(key): must be a whole number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return number
    }

    private mutating func number(_ mapping: Node.Mapping, _ key: String) -> Double? {
        guard let node = mapping[key] else { return nil }
        guard let number = node.string.flatMap({ Double($0) }), number >= 0.001, number <= 1_000_000 else {
            self.complain(node, "\(key): must be a number from 0.001 to 1000000")
            return nil
        }
        return number
    }

    private mutating func duration(_ mapping: Node.Mapping, _ key: String) -> Duration? {
        guard let node = mapping[key] else { return nil }
        let text = node.string ?? ""
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let units = ["ms": 1e-3, "s": 1, "m": 60, "h": 3600]
        guard let number = Double(String(digits)), let unit = units[String(text.dropFirst(digits.count))],
            number * unit <= 3600
        else {
            self.complain(node, "\(key): must be a duration like 250ms, 30s or 10m, at most 1h")
            return nil
        }
        return .microseconds(Int64(number * unit * 1e6))
    }

    /// Both ranges; where none is given, those of a single engine.
    private mutating func portRanges(_ mapping: Node.Mapping) -> (adb: ClosedRange<Int>, webRTC: ClosedRange<Int>) {
        let adb = self.range(mapping, "adb-ports") ?? 5555...6554
        let webRTC = self.range(mapping, "webrtc-ports") ?? 8080...9079
        let place = mapping["webrtc-ports"] ?? mapping["adb-ports"]
        if adb.count != webRTC.count {
            self.complain(
                place,
                "webrtc-ports: \(webRTC.count) ports for \(adb.count) adb ports (allowed: ranges of equal length)")
        } else if adb.overlaps(webRTC) {
            self.complain(place, "webrtc-ports: overlaps the adb ports (allowed: ranges that share no port)")
        }
        return (adb, webRTC)
    }

    private mutating func range(_ mapping: Node.Mapping, _ key: String) -> ClosedRange<Int>? {
        guard let node = mapping[key] else { return nil }
        let parts = (node.string ?? "").split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let first = parts[0], let last = parts[1], 1 <= first, first <= last, last <= 65535
        else {
            self.complain(node, "\(key): must be FIRST-LAST, within 1-65535")
            return nil
        }
        return first...last
    }

    private mutating func checkKeys(_ mapping: Node.Mapping, _ allowed: [String]) {
        for (key, _) in mapping where !allowed.contains(key.string ?? "") {
            self.complain(
                key, "\(Self.quoted(key)): no such key (allowed: \(allowed.sorted().joined(separator: ", ")))")
        }
    }

    private mutating func complain(_ node: Node?, _ text: String) {
        self.problems.append(SitesFile.Problem(line: node?.mark?.line, text: text))
    }

    private static func quoted(_ key: Node) -> String {
        Text.sanitised(key.string ?? "a key that is no text", maximumScalars: 60)
    }

    private static func problem(_ error: any Error) -> SitesFile.Problem {
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            SitesFile.Problem(line: mark.line, text: "is no YAML: \(problem)")
        case .duplicatedKeysInMapping(let duplicates, let context):
            SitesFile.Problem(
                line: context.mark.line,
                text: "a mapping with a key twice: \(duplicates.sorted().joined(separator: ", "))")
        default:
            SitesFile.Problem(line: nil, text: "is no YAML")
        }
    }
}
