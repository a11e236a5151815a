import DeviceRPC

/// Checks a request as a server will, before one is asked: one that is away would be waited for in vain.
enum RequestCheck {
    /// Which option a field of `CreateDeviceRequest` comes from, where their names differ.
    private static let options = [
        "user_id": "--user", "tenant_id": "--tenant", "spec.width_px": "--width", "spec.height_px": "--height",
        "provider_options": "--option", "tags": "--tag",
    ]

    static func check(_ request: V1.CreateDeviceRequest) throws(UsageError) {
        // Which providers there are, and what they take, only the server knows.
        let rules = CreateDeviceSpecification.Rules(
            defaultProvider: .simulated, providers: V1.Provider.known.map(\.value))
        do throws(InvalidRequest) {
            _ = try CreateDeviceSpecification(validating: request, rules: rules)
        } catch {
            let lines = error.violations.map { "\(Self.option(of: $0.field)): \($0.explanation)" }
            throw UsageError(lines.joined(separator: "\n  "))
        }
    }

    /// `--cpu-cores` for `spec.cpu_cores`, `--option a` for `provider_options.a`.
    static func option(of field: String) -> String {
        let root = String(field.prefix { $0 != "." && $0 != "[" })
        let isSpec = root == "spec"
        if let option = Self.options[isSpec ? field : root] {
            let rest = isSpec ? "" : String(field.dropFirst(root.count).drop { $0 == "." })
            return rest.isEmpty || rest.hasPrefix("[") ? option + rest : "\(option) \(rest)"
        }
        let name = isSpec ? String(field.dropFirst(root.count + 1)) : root
        let rest = isSpec ? "" : String(field.dropFirst(root.count).drop { $0 == "." })
        return "--" + String(name.map { $0 == "_" ? "-" : $0 }) + (rest.isEmpty ? "" : " " + rest)
    }
}
