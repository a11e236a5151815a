import Dispatch
import Glibc
import Logging
import ServiceLifecycle

/// Turns SIGTERM and SIGINT into a graceful shutdown, and a second one into the end. Comes first in the service group, and
/// so is the last to go: a second signal counts until everything else is over.
struct SignalService: Service {
    let logger: Logger
    let output: ServerOutput
    /// Called at the first signal, once.
    let onFirst: @Sendable () async -> Void

    func run() async throws {
        let (signals, continuation) = AsyncStream<Int32>.makeStream()
        let sources = [SIGTERM, SIGINT].map { number in
            // The default action would end the process before the source hears of it.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { continuation.yield(number) }
            source.resume()
            return source
        }
        defer { for source in sources { source.cancel() } }
        var isStopping = false
        for await number in signals.cancelOnGracefulShutdown() {
            let name = number == SIGTERM ? "SIGTERM" : "SIGINT"
            if isStopping {
                self.logger.critical("\(name) again: stopping at once; other replicas take up what is open")
                await self.output.flush(within: ServerOutput.patienceAtOnce)
                _exit(CommandStatus.interrupted.rawValue)
            }
            isStopping = true
            self.logger.notice("\(name): draining; a second signal stops at once")
            await self.onFirst()
        }
    }
}
