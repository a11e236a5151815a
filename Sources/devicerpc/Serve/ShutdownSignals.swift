import Dispatch
import Glibc
import Logging
import SagaRuntime
import Synchronization

/// SIGTERM and SIGINT from the process' first moment on: the first one ends it in good order, whatever it is doing, and a
/// second one at once.
final class ShutdownSignals: Sendable {
    private struct State {
        var count = 0
        var onFirst: @Sendable () async -> Void = {}
    }

    private let state = Mutex(State())
    /// Set once, at the beginning; DispatchSource is not Sendable, and only kept.
    private nonisolated(unsafe) var sources: [any DispatchSourceSignal] = []
    private let told: @Sendable (_ words: String, _ level: Logger.Level) async -> Void

    /// - Parameter told: hears what is to be said; returns when it is written, as far as that can be waited for.
    init(told: @escaping @Sendable (_ words: String, _ level: Logger.Level) async -> Void) {
        self.told = told
        self.sources = [SIGTERM, SIGINT].map { number in
            // The default action would end the process before the source hears of it.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { [weak self] in self?.came(number) }
            source.resume()
            return source
        }
    }

    deinit { for source in self.sources { source.cancel() } }

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
