/// Names of a batch's devices: text with one `{n}`, or `{n:3}` for at least three digits.
struct NamePattern: Sendable, Equatable {
    private let prefix: String
    private let suffix: String
    private let minimumDigits: Int

    /// `nil` unless there is exactly one place for the number.
    init?(_ text: String) {
        guard let open = text.firstIndex(of: "{"), let close = text.firstIndex(of: "}"), open < close,
            !text[text.index(after: open)..<close].contains("{"),
            !text[text.index(after: close)...].contains(where: { $0 == "{" || $0 == "}" })
        else { return nil }
        let parts = text[text.index(after: open)..<close].split(separator: ":", omittingEmptySubsequences: false)
        guard parts.first == "n", parts.count <= 2 else { return nil }
        guard let digits = parts.count == 2 ? Int(parts[1]) : 1, (1...18).contains(digits) else { return nil }
        self.prefix = String(text[..<open])
        self.suffix = String(text[text.index(after: close)...])
        self.minimumDigits = digits
    }

    func name(_ number: Int) -> String {
        let digits = String(number)
        let zeros = String(repeating: "0", count: max(0, self.minimumDigits - digits.count))
        return self.prefix + zeros + digits + self.suffix
    }
}
