import SagaRuntime

// What the steps leave in the journal for those after them: JSON text, a few hundred bytes.

/// The part of ALLOCATE_PORTS' output that names the site, from version 2 on; CLAIM_DEVICE's names it too, where it is known.
enum SiteOutput {
    private static let start = "{\"site\":\""

    static func site(_ outputs: [String: String]) -> String? {
        if let output = outputs[DeviceStep.claimDevice] { return (try? JSONValue(parsing: output))?["site"]?.string }
        guard let output = outputs[DeviceStep.allocatePorts], output.hasPrefix("{\"site\":") else { return nil }
        // It is asked for at every turn of a saga, and there is nothing in a name that JSON escapes.
        if output.hasPrefix(Self.start) {
            let name = output.utf8.dropFirst(Self.start.utf8.count).prefix(while: SiteName.mayContain)
            if output.utf8.dropFirst(Self.start.utf8.count + name.count).first == UInt8(ascii: "\"") {
                return String(Substring(name))
            }
        }
        return (try? JSONValue(parsing: output))?["site"]?.string
    }
}

extension PortPair {
    /// Reads the output of ALLOCATE_PORTS; `nil` for a provider without ports.
    init?(output: String?) throws(StoredDataError) {
        guard let output, !output.isEmpty, output != "{}" else { return nil }
        let parsed = try? JSONValue(parsing: output)
        if let parsed, parsed["site"] != nil, parsed["host"] == nil { return nil }
        guard let value = parsed, let host = value["host"]?.string,
            let adb = value["adb"]?.integer, let webRTC = value["webrtc"]?.integer
        else { throw StoredDataError(message: "the output of \(DeviceStep.allocatePorts) is not a pair of ports") }
        self.init(host: host, adb: adb, webRTC: webRTC)
    }
}

extension ProviderDevice {
    /// The output of CREATE_PROVIDER_DEVICE.
    var output: String {
        JSONWriter.object(reserving: 128) { writer in
            writer.member("id", self.externalID)
            if !self.host.isEmpty { writer.member("host", self.host) }
            writer.member("generation", self.generation)
            if !self.isUsable { writer.member("usable", false) }
            if !self.attributes.isEmpty { writer.member("attributes", self.attributes) }
        }
    }

    init(output: String) throws(StoredDataError) {
        guard let value = try? JSONValue(parsing: output) else {
            throw StoredDataError(message: "the output of \(DeviceStep.createProviderDevice) is not JSON")
        }
        try self.init(value)
    }

    init(_ value: JSONValue) throws(StoredDataError) {
        guard let id = value["id"]?.string, let generation = value["generation"]?.integer
        else {
            throw StoredDataError(message: "the output of \(DeviceStep.createProviderDevice) is not a device")
        }
        self.init(
            externalID: id, host: value["host"]?.string ?? "", generation: generation,
            isUsable: value["usable"]?.bool ?? true, attributes: value["attributes"]?.strings ?? [:])
    }
}

extension DeviceConnection {
    /// The output of START_DEVICE.
    var output: String {
        JSONWriter.object(reserving: 128) { writer in
            if !self.host.isEmpty { writer.member("host", self.host) }
            if self.adbPort != 0 { writer.member("adb", self.adbPort) }
            if self.webRTCPort != 0 { writer.member("webrtc", self.webRTCPort) }
            if !self.attributes.isEmpty { writer.member("attributes", self.attributes) }
        }
    }
}
