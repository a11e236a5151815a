/// Whether this replica takes new work, and if not, why not.
struct Readiness: Sendable, Equatable {
    struct Check: Sendable, Equatable {
        let name: String
        let isOK: Bool
        /// For people; empty when there is nothing to say.
        let detail: String

        init(_ name: String, _ isOK: Bool, _ detail: String = "") {
            self.name = name
            self.isOK = isOK
            self.detail = detail
        }
    }

    let checks: [Check]

    var isReady: Bool { self.checks.allSatisfy(\.isOK) }

    /// `{"ready":false,"checks":{"database":{"ok":false,"detail":"…"}}}`
    func json() -> String {
        var text = "{\"ready\":\(self.isReady),\"checks\":{"
        for (index, check) in self.checks.enumerated() {
            if index > 0 { text += "," }
            text += "\(JSONText.quoted(check.name)):{\"ok\":\(check.isOK)"
            if !check.detail.isEmpty { text += ",\"detail\":\(JSONText.quoted(check.detail))" }
            text += "}"
        }
        return text + "}}\n"
    }
}
