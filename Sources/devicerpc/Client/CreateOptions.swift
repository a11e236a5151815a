import ArgumentParser
import DeviceProvisioning
import DeviceRPC
import Foundation
import Glibc

/// A `CreateDeviceRequest`, field by field, on the command line; over a template if there is one.
struct CreateOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A file with a CreateDeviceRequest in proto3 JSON (- is standard input); flags win.", valueName: "file"))
    var template: String?

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp(
            "A field of the template, as spec.cpuCores=4 or metadata.team=qa; may come several times.",
            valueName: "name=value"), transform: OptionValues.pair("spec.cpuCores=4"))
    var fields: [KeyValueArgument] = []

    @Option(name: [.customLong("user")], help: "The owner.")
    var userID: String?

    @Option(name: [.customLong("tenant")], help: "The owner's tenant.")
    var tenantID: String?

    @Option(help: "Up to 500 characters.")
    var description: String?

    @Option(help: "phone or tablet.")
    var type: String?

    @Option(help: "simulated, redroid, …; the server's default if not given.")
    var provider: String?

    @Option(help: "CPU cores, 1 to 16.", transform: OptionValues.number(1...16))
    var cpuCores: UInt32?

    @Option(
        name: .customLong("memory-mb"), help: "Memory in MB, 512 to 32768.",
        transform: OptionValues.number(512...32_768))
    var memoryMB: UInt32?

    @Option(
        name: .customLong("storage-mb"), help: "Storage in MB, 1024 to 1048576.",
        transform: OptionValues.number(1024...1_048_576))
    var storageMB: UInt32?

    @Option(
        name: .customLong("width"), help: "Screen width in pixels, 240 to 7680.",
        transform: OptionValues.number(240...7680))
    var widthPx: UInt32?

    @Option(
        name: .customLong("height"), help: "Screen height in pixels, 240 to 7680.",
        transform: OptionValues.number(240...7680))
    var heightPx: UInt32?

    @Option(help: "Screen density, 120 to 640.", transform: OptionValues.number(120...640))
    var dpi: UInt32?

    @Option(help: "e.g. 11 or 13.")
    var androidVersion: String?

    @Option(name: .customLong("tag"), help: "A tag; may come several times.")
    var tags: [String] = []

    @Option(
        name: .customLong("metadata"), help: ArgumentHelp("May come several times.", valueName: "key=value"),
        transform: OptionValues.pair("team=qa"))
    var metadata: [KeyValueArgument] = []

    @Option(
        name: .customLong("option"),
        help: ArgumentHelp(
            "A provider option; may come several times. A value @file is read from that file, for secrets.",
            valueName: "key=value"), transform: OptionValues.pair("boot_ms=2000"))
    var providerOptions: [KeyValueArgument] = []

    @Option(
        help: ArgumentHelp("How long the saga may take forwards, 1s to 24h, e.g. 10m.", valueName: "duration"),
        transform: OptionValues.duration(.seconds(1) ... .seconds(86_400)))
    var sagaTimeout: DurationArgument?

    @Option(help: "accepted, provisioned or finished.")
    var returnWhen: String?

    /// The request, without name, request id and batch id.
    func request() throws -> V1.CreateDeviceRequest {
        var request = V1.CreateDeviceRequest()
        var text = "{}"
        if let template = self.template {
            text = try InputFile.read(template, "--template")
            do throws(ProtoJSONError) {
                request = try V1.CreateDeviceRequest(json: text)
            } catch {
                throw UsageError("--template: \(template): \(error)")
            }
        }
        if !self.fields.isEmpty { request = try self.withFields(text) }
        try self.apply(to: &request)
        return request
    }

    /// The template with the fields that are set.
    ///
    /// - Parameter text: a request in JSON.
    private func withFields(_ text: String) throws -> V1.CreateDeviceRequest {
        var document = try JSONParser.parse(text)
        for field in self.fields { document = try TemplateField(field).set(in: document) }
        do throws(ProtoJSONError) {
            return try V1.CreateDeviceRequest(json: document)
        } catch {
            throw UsageError("--set: \(error.problem)")
        }
    }

    private func apply(to request: inout V1.CreateDeviceRequest) throws {
        if let userID = self.userID { request.userID = userID }
        if let tenantID = self.tenantID { request.tenantID = tenantID }
        if let description = self.description { request.description = description }
        if let type = self.type { request.type = try EnumArgument.value(type, "--type") }
        if let provider = self.provider { request.provider = try EnumArgument.value(provider, "--provider") }
        if let returnWhen = self.returnWhen { request.returnWhen = try EnumArgument.value(returnWhen, "--return-when") }
        if let timeout = self.sagaTimeout { request.sagaTimeout = ProtobufDuration(timeout.duration) }
        if !self.tags.isEmpty { request.tags = self.tags }
        request.metadata.merge(try OptionValues.dictionary(self.metadata, "--metadata")) { $1 }
        for (key, value) in try OptionValues.dictionary(self.providerOptions, "--option") {
            request.providerOptions[key] = try Self.optionValue(value)
        }
        self.applySpec(to: &request)
    }

    private func applySpec(to request: inout V1.CreateDeviceRequest) {
        var spec = request.spec ?? V1.DeviceSpec()
        if let cpuCores = self.cpuCores { spec.cpuCores = cpuCores }
        if let memoryMB = self.memoryMB { spec.memoryMB = memoryMB }
        if let storageMB = self.storageMB { spec.storageMB = storageMB }
        if let widthPx = self.widthPx { spec.widthPx = widthPx }
        if let heightPx = self.heightPx { spec.heightPx = heightPx }
        if let dpi = self.dpi { spec.dpi = dpi }
        if let androidVersion = self.androidVersion { spec.androidVersion = androidVersion }
        if spec != V1.DeviceSpec() { request.spec = spec }
    }

    private static func optionValue(_ text: String) throws -> String {
        guard text.hasPrefix("@") else { return text }
        let content = try InputFile.read(String(text.dropFirst()), "--option")
        return content.hasSuffix("\n") ? String(content.dropLast()) : content
    }
}

/// Files that arguments name.
enum InputFile {
    /// The text of a file, or of standard input for `-`.
    ///
    /// - Parameter flag: what named it, for the error.
    static func read(_ path: String, _ flag: String) throws(UsageError) -> String {
        if path == "-" {
            guard let data = try? FileHandle.standardInput.readToEnd() else { return "" }
            return String(decoding: data, as: UTF8.self)
        }
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
            let reason =
                access(path, R_OK) == 0 ? " as UTF-8 text" : ": \(String(cString: strerror(errno)))"
            throw UsageError("\(flag): '\(path)' can't be read\(reason) (allowed: a file of text)")
        }
        return text
    }
}
