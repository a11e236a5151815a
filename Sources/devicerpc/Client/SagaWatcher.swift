import DeviceRPC
import RPCTransport
import SagaRuntime
import Synchronization

/// Follows one saga to its end, on a terminal, in a pipe or as JSON, across lost connections and restarted servers.
struct SagaWatcher {
    let client: DeviceClient
    let options: ClientOptions
    /// How long the server may be away before it is given up.
    let patience: Duration

    /// Prints every event after `sequence` once, in order.
    ///
    /// - Returns: the saga's status once it is over or parked.
    func follow(_ sagaID: String, after sequence: UInt32 = 0) async throws -> V1.SagaStatus {
        let terminal = self.options.terminal()
        let screen = Screen(terminal: terminal, format: self.options.output)
        let isLive = terminal.isInteractive && self.options.output == .text
        return try await withThrowingTaskGroup(of: V1.SagaStatus?.self) { group in
            if isLive {
                group.addTask {
                    while !Task.isCancelled {
                        screen.draw()
                        try? await Task.sleep(for: .milliseconds(100))
                    }
                    return nil
                }
            }
            group.addTask { try await self.receive(sagaID, after: sequence, into: screen) }
            defer {
                group.cancelAll()
                screen.clear()
            }
            while let status = try await group.next() {
                if let status { return status }
            }
            throw CancellationError()
        }
    }

    private func receive(_ sagaID: String, after sequence: UInt32, into screen: Screen) async throws -> V1.SagaStatus {
        var lastSequence = sequence
        var giveUpAt = ContinuousClock.now + self.patience
        var delay = Retry.initialDelay
        while true {
            var wait = delay
            do {
                let request = V1.WatchSagaRequest.with {
                    $0.sagaID = sagaID
                    $0.afterSequence = lastSequence
                }
                try await self.client.watchSaga(request) { event in
                    lastSequence = max(lastSequence, event.sequence)
                    screen.show(event)
                    giveUpAt = .now + self.patience
                    delay = Retry.initialDelay
                }
                if let status = screen.finalStatus { return status }
                // OK without a last event: it was over before we came.
                let saga = try await self.client.getSaga(.with { $0.sagaID = sagaID }, timeout: .seconds(10))
                if saga.status != .running, saga.status != .compensating { return saga.status }
            } catch let failure as CallFailure where failure.isRetryable {
                wait = failure.pushback ?? delay
                if ContinuousClock.now + wait >= giveUpAt { throw failure }
                if delay == Retry.initialDelay, self.options.output == .text {
                    screen.note("the server is away (\(failure.message)); asking again after event \(lastSequence)")
                }
            }
            try await Task.sleep(for: wait)
            delay = min(delay * 2, Retry.maximumDelay)
        }
    }
}

/// What is on the screen. Two tasks draw: one on events, one as time goes by.
private final class Screen: Sendable {
    private struct State {
        var progress = SagaProgress()
        var line = LiveLine()
    }

    private let terminal: Terminal
    private let format: OutputFormat
    private let state = Mutex(State())

    init(terminal: Terminal, format: OutputFormat) {
        self.terminal = terminal
        self.format = format
    }

    var finalStatus: V1.SagaStatus? {
        self.state.withLock { $0.progress.isOver ? $0.progress.status : nil }
    }

    func show(_ event: V1.SagaEvent) {
        self.state.withLock { state in
            let seen = state.progress.lastSequence
            let lines = state.progress.apply(event, style: self.terminal.style)
            guard event.sequence > seen else { return }
            switch self.format {
            case .json: StandardOutput.write(event.json(.compact) + "\n")
            case .text where self.terminal.isInteractive: state.line.print(lines)
            case .text: StandardOutput.write(event.plainLine + "\n")
            }
        }
    }

    func draw() {
        let now = Timestamp(microseconds: WallClock.now())
        self.state.withLock { state in
            if !state.progress.isOver { state.line.draw(state.progress.liveLine(now: now), width: Terminal.width()) }
        }
    }

    func note(_ text: String) {
        self.state.withLock { state in
            state.line.clear()
            StandardError.write("\(self.terminal.style.dim(Printable.text(text)))\n")
        }
    }

    func clear() { self.state.withLock { $0.line.clear() } }
}

extension CommandStatus {
    /// What a saga's end means to a script.
    init(_ status: V1.SagaStatus) {
        switch status {
        case .completed: self = .success
        case .compensated: self = .failed
        case .parked: self = .parked
        default: self = .internalError
        }
    }
}
