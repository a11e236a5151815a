import Dispatch
import Glibc
import Logging
import SagaRuntime
import Synchronization

/// SIGTERM and SIGINT from the process' first moment on: the first one ends it in good order, whatever it is doing, and a
/// second one at once. One for the process.
final class ShutdownSignals: Sendable {
    private struct State {
        var count = 0
        var onFirst: @Sendable () async -> Void = {}
    }

    private let state = Mutex(State())
    private let told: @Sendable (_ words: String, _ level: Logger.Level) async -> Void

    /// - Parameter told: hears what is to be said; returns when it is written, as far as that can be waited for.
    init(told: @escaping @Sendable (_ words: String, _ level: Logger.Level) async -> Void) {
        self.told = told
        // A pipe that keeps what has come until it is read. DispatchSource's own source of signals needs them ignored
        // first, and is registered later: what comes in between would be lost.
        // A pair of sockets rather than pipe(2), which can't set close-on-exec at once.
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        // EMFILE, ENFILE: the default action ends the process.
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { return }
        signalPipe = ends[1]
        let source = DispatchSource.makeReadSource(fileDescriptor: ends[0], queue: .global())
        source.setEventHandler { [self, source] in
            var number: UInt8 = 0
            // The source lives as long as the process.
            while read(Int32(source.handle), &number, 1) == 1 { self.came(Int32(number)) }
        }
        source.resume()
        for number in [SIGTERM, SIGINT] {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = noteSignal
            action.sa_flags = SA_RESTART
            _ = sigaction(number, &action, nil)
        }
    }

    /// Whether a signal has come.
    var isStopping: Bool { self.state.withLock { $0.count > 0 } }

    /// What the first signal does from now on.
    ///
    /// - Returns: false if it has come already; then whoever asks is to end by itself.
    func handle(_ onFirst: @escaping @Sendable () async -> Void) -> Bool {
        self.state.withLock { state in
            if state.count == 0 { state.onFirst = onFirst }
            return state.count == 0
        }
    }

    private func came(_ number: Int32) {
        let (count, onFirst) = self.state.withLock { state in
            state.count += 1
            return (state.count, state.onFirst)
        }
        let name = number == SIGTERM ? "SIGTERM" : "SIGINT"
        Task {
            if count > 1 {
                EmbeddedPostgres.endAllAtOnce()
                await self.told("\(name) again: stopping at once; other replicas take up what is open", .critical)
                _exit(CommandStatus.interrupted.rawValue)
            }
            await self.told("\(name): draining; a second signal stops at once", .notice)
            await onFirst()
        }
    }

    /// Runs what may be given up at the first signal.
    ///
    /// - Throws: `CancellationError` once it is given up.
    func interrupting<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) async throws -> T {
        let task = Task(operation: body)
        guard self.handle({ task.cancel() }) else {
            task.cancel()
            _ = await task.result
            throw CancellationError()
        }
        do {
            return try await task.value
        } catch {
            if task.isCancelled { throw CancellationError() }
            throw error
        }
    }
}

/// Where `noteSignal` writes; -1 as long as no signal is handled.
private nonisolated(unsafe) var signalPipe: Int32 = -1

/// A signal's handler, on whichever thread it interrupts: write(2) is one of the few calls that it may make.
private let noteSignal: @convention(c) (Int32) -> Void = { number in
    let interrupted = errno
    var byte = UInt8(truncatingIfNeeded: number)
    _ = write(signalPipe, &byte, 1)
    errno = interrupted
}
