/// The arguments are wrong in a way that only a look at files or at several of them shows.
struct UsageError: Error, CustomStringConvertible {
    let message: String

    init(_ message: String) { self.message = message }

    var description: String { self.message }

    /// One line, as `CallFailure.json()`.
    func json() -> String {
        "{\"error\":{\"code\":\"INVALID_ARGUMENT\",\"reason\":\"USAGE\",\"message\":\(JSONText.quoted(self.message))}}\n"
    }
}
