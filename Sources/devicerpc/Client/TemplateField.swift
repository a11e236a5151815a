import DeviceProvisioning
import DeviceRPC

/// `--set spec.cpuCores=4`: a field of a template, by its path in JSON or in the contract.
struct TemplateField {
    private static let maps = ["metadata", "provideroptions"]
    private static let lists = ["tags"]

    /// Its names from the outside in.
    private let path: [String]
    private let value: String

    init(_ argument: KeyValueArgument) throws(UsageError) {
        let parts = argument.key.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        let isMap = parts.first.map { Self.maps.contains(Self.plain($0)) } ?? false
        // The rest is a key of the map, which may have dots.
        self.path = isMap && parts.count > 1 ? [parts[0], parts.dropFirst().joined(separator: ".")] : parts
        self.value = argument.value
        guard !self.path.contains(""), !isMap || self.path.count == 2 else {
            throw UsageError(
                "--set: '\(argument.key)' is no field (allowed: a path such as description, spec.cpuCores or metadata.team)"
            )
        }
    }

    /// The document with this field in it.
    func set(in document: JSONValue) throws(UsageError) -> JSONValue { try self.set(in: document, self.path[...]) }

    private func set(in value: JSONValue, _ path: ArraySlice<String>) throws(UsageError) -> JSONValue {
        guard let name = path.first else { return self.leaf }
        guard case .object(var members) = value.content else {
            throw UsageError("--set: '\(self.path.joined(separator: "."))': what holds it is no object in the template")
        }
        let isKey = path.count == 1 && self.path.count == 2 && Self.maps.contains(Self.plain(self.path[0]))
        let index = members.firstIndex { isKey ? $0.key == name : Self.plain($0.key) == Self.plain(name) }
        let inner = index.map { members[$0].value } ?? JSONValue(content: .object([]), offset: 0)
        let changed = try self.set(in: inner, path.dropFirst())
        if let index { members[index].value = changed } else { members.append((key: name, value: changed)) }
        return JSONValue(content: .object(members), offset: value.offset)
    }

    /// Text, which proto3 JSON takes for numbers, enums and durations too.
    private var leaf: JSONValue {
        let isList = self.path.count == 1 && Self.lists.contains(Self.plain(self.path[0]))
        let parts = isList ? self.value.split(separator: ",").map(String.init) : [self.value]
        let texts = parts.map { JSONValue(content: .string($0), offset: 0) }
        return isList ? JSONValue(content: .array(texts), offset: 0) : texts[0]
    }

    /// As cpuCores and cpu_cores have it in common.
    private static func plain(_ name: String) -> String { name.lowercased().filter { $0 != "_" } }
}
