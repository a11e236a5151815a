/// The labels of one series, sorted by name and rendered once.
struct LabelSet: Hashable, Sendable {
    /// `{a="b",c="d"}`, or empty without labels.
    let rendered: String

    init(_ labels: [(String, String)]) {
        if labels.isEmpty {
            self.rendered = ""
            return
        }
        var pairs: [String: String] = [:]
        for (name, value) in labels { pairs[Exposition.labelName(name)] = value }
        let parts = pairs.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(Exposition.escapedLabel($0.value))\"" }
        self.rendered = "{" + parts.joined(separator: ",") + "}"
    }

    /// The labels and one more; `value` needs no escaping.
    func rendered(with name: String, _ value: String) -> String {
        self.rendered.isEmpty ? "{\(name)=\"\(value)\"}" : "\(self.rendered.dropLast()),\(name)=\"\(value)\"}"
    }
}
