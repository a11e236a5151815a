/// `provider_options` of a redroid device, checked.
struct RedroidOptions {
    /// Boot arguments without the prefix `androidboot.redroid_`, in a fixed order.
    private(set) var bootArguments: [(name: String, value: String)] = []

    static let keys = [
        "fps", "gpu_mode", "net_proxy_type", "net_proxy_host", "net_proxy_port", "net_proxy_exclude_list",
        "net_proxy_pac",
    ]
    static let proxyTypes = ["static", "pac", "none", "unassigned"]

    /// Reads the options. What is wrong goes to `violations` and is left out.
    init(_ options: [String: String], configuration: RedroidConfiguration, violations: inout [ProviderViolation]) {
        func refuse(_ key: String, _ description: String) {
            violations.append(ProviderViolation(field: "provider_options.\(key)", description: description))
        }
        for key in options.keys.sorted() where !Self.keys.contains(key) {
            refuse(key, "unknown for provider redroid; known are \(Self.keys.joined(separator: ", "))")
        }

        var framesPerSecond = configuration.framesPerSecond
        if let text = options["fps"] {
            if let number = Int(text), RedroidConfiguration.framesPerSecondRange.contains(number) {
                framesPerSecond = number
            } else {
                refuse("fps", "must be a whole number from 1 to 240")
            }
        }
        var gpuMode = configuration.gpuMode
        if let mode = options["gpu_mode"] {
            if RedroidConfiguration.gpuModes.contains(mode) {
                gpuMode = mode
            } else {
                refuse("gpu_mode", "must be auto, host or guest")
            }
        }
        self.bootArguments = [("fps", String(framesPerSecond)), ("gpu_mode", gpuMode)]

        let host = options["net_proxy_host"]
        var type = host == nil ? nil : "static"
        if let text = options["net_proxy_type"] {
            if Self.proxyTypes.contains(text) {
                type = text
            } else {
                refuse("net_proxy_type", "must be static, pac, none or unassigned")
            }
        }
        if let type { self.bootArguments.append(("net_proxy_type", type)) }
        if let host {
            if Self.isPlain(host, alsoAllowed: "") {
                self.bootArguments.append(("net_proxy_host", host))
            } else {
                refuse("net_proxy_host", "must be a host name or an IP address")
            }
        } else if type == "static" {
            refuse("net_proxy_host", "is required where net_proxy_type is static")
        }
        if let port = options["net_proxy_port"] {
            if let number = Int(port), (1...65535).contains(number) {
                self.bootArguments.append(("net_proxy_port", String(number)))
            } else {
                refuse("net_proxy_port", "must be a port from 1 to 65535")
            }
            if host == nil { refuse("net_proxy_port", "has no meaning without net_proxy_host") }
        }
        if let list = options["net_proxy_exclude_list"] {
            if Self.isPlain(list, alsoAllowed: ",*/") {
                self.bootArguments.append(("net_proxy_exclude_list", list))
            } else {
                refuse("net_proxy_exclude_list", "must be host names, separated by commas")
            }
        }
        if let url = options["net_proxy_pac"] {
            if url.hasPrefix("http://") || url.hasPrefix("https://"), Self.isPlain(url, alsoAllowed: "/?&=%+~,;@!") {
                self.bootArguments.append(("net_proxy_pac", url))
            } else {
                refuse("net_proxy_pac", "must be an http or https URL")
            }
            if type != "pac" { refuse("net_proxy_pac", "needs net_proxy_type pac") }
        } else if type == "pac" {
            refuse("net_proxy_pac", "is required where net_proxy_type is pac")
        }
    }

    /// Printable ASCII without blanks, quotes or anything else that Android's init could read as a second argument.
    private static func isPlain(_ text: String, alsoAllowed: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 256
            && text.utf8.allSatisfy { byte in
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                    || ".-_:[]".utf8.contains(byte) || alsoAllowed.utf8.contains(byte)
            }
    }
}
