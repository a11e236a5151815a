import ArgumentParser

/// What the commands' exit codes mean; scripts may rely on them.
enum CommandStatus: Int32, CaseIterable, Sendable {
    case success = 0
    case failed = 1
    case unavailable = 3
    case notFound = 4
    case parked = 5
    case refused = 6
    case timedOut = 7
    case usage = 64
    case internalError = 70
    case interrupted = 130

    var meaning: String {
        switch self {
        case .success: "it worked; a saga that was waited for completed"
        case .failed: "a saga failed and everything is undone; in a batch: at least one did"
        case .unavailable: "the server or its database can't be reached, is overloaded or shutting down; try again"
        case .notFound: "no such saga or device"
        case .parked: "a saga is parked and waits for an operator"
        case .refused: "the server refused the call: invalid, not allowed, or the request id was used otherwise"
        case .timedOut: "the time given was over; a saga that was started goes on"
        case .usage: "the arguments or the configuration are wrong; nothing was done"
        case .internalError: "a fault of this program or of the server"
        case .interrupted: "interrupted from the keyboard, or stopped by a second signal"
        }
    }

    /// The table for `--help`.
    static var help: String {
        "EXIT CODES (with --output json, an error is one JSON object on standard error):\n"
            + Self.allCases.map { "  \($0.rawValue)".padded(to: 7) + $0.meaning }.joined(separator: "\n")
    }
}

/// Ends the process with `status` once everything is cleaned up. What there was to say has been said.
struct Exit: Error {
    let status: CommandStatus

    init(_ status: CommandStatus) { self.status = status }
}

extension String {
    /// The text with spaces up to `width` characters.
    func padded(to width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - self.count))
    }
}
