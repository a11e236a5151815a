import Logging
import RPCTransport
import ServiceLifecycle
import Synchronization

/// A line for each call that ended, written by a task of its own: event loops don't wait for whoever reads the log. Lines
/// that come faster than they are taken are left out, and counted in the next one.
struct AccessLog: Service {
    private static let maximumWaiting = 8192

    private let calls: AsyncStream<RPCAccess>
    private let add: AsyncStream<RPCAccess>.Continuation
    private let leftOut = LeftOut()
    private let logger: Logger

    private final class LeftOut: Sendable { let count = Atomic<Int>(0) }

    init(logger: Logger) {
        self.logger = logger
        (self.calls, self.add) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(Self.maximumWaiting))
    }

    func ended(_ call: RPCAccess) {
        if case .dropped = self.add.yield(call) { self.leftOut.count.add(1, ordering: .relaxed) }
    }

    /// Writes until told to stop, and then what waits still.
    func run() async {
        await withGracefulShutdownHandler {
            for await call in self.calls { self.write(call) }
        } onGracefulShutdown: {
            self.add.finish()
        }
    }

    private func write(_ call: RPCAccess) {
        let (seconds, attoseconds) = call.duration.components
        let microseconds = seconds * 1_000_000 + attoseconds / 1_000_000_000_000
        var metadata: Logger.Metadata = [
            "method": "\(call.method)", "outcome": "\(call.code.name)", "duration_us": "\(microseconds)",
            "peer": "\(call.peer)",
        ]
        if let id = call.requestID { metadata["x_request_id"] = "\(id)" }
        let leftOut = self.leftOut.count.exchange(0, ordering: .relaxed)
        if leftOut > 0 { metadata["unlogged_before"] = "\(leftOut)" }
        self.logger.info("[ACCESS]", metadata: metadata)
    }
}
