import Glibc
import NIOCore

/// Says in plain words why a connection did not come to be, or was lost.
enum ConnectFailure {
    /// - Parameter limit: how long an address had to answer.
    static func reason(_ error: any Error, within limit: Duration? = nil) -> String {
        switch error {
        // NIO tells the call that failed; people want to know why.
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case ChannelError.connectTimeout: "no answer" + (limit.map { " within \(Self.text($0))" } ?? "")
        case ChannelError.eof: "the server hung up"
        default: "\(error)"
        }
    }

    /// Seconds, with up to three decimals.
    static func text(_ duration: Duration) -> String {
        let milliseconds = duration.clampedNanoseconds / 1_000_000
        return milliseconds % 1000 == 0 ? "\(milliseconds / 1000) s" : "\(Double(milliseconds) / 1000) s"
    }
}
