import DeviceRPC
import RPCTransport

/// Follows all sagas of a batch on one stream until none of them moves, across lost connections and restarted servers.
struct BatchWatcher {
    let client: DeviceClient
    let options: ClientOptions
    /// How long the server may be away before it is given up.
    let patience: Duration

    private struct Screen: Sendable {
        var progress = BatchProgress()
        var isDrawn = false
    }

    func follow(_ batchID: String) async throws -> CommandStatus {
        let terminal = self.options.terminal()
        let isLive = terminal.isInteractive && self.options.output == .text
        let started = ContinuousClock.now
        let screen = Shared(Screen())
        try await withThrowingTaskGroup(of: Bool.self) { group in
            if isLive {
                group.addTask {
                    while !Task.isCancelled {
                        screen.withLock { screen in
                            let line = screen.progress.line(elapsed: .now - started)
                            StandardError.write("\r\u{1b}[K" + String(line.prefix(max(1, Terminal.width() - 1))))
                            screen.isDrawn = true
                        }
                        try? await Task.sleep(for: .milliseconds(100))
                    }
                    return false
                }
            }
            group.addTask {
                try await self.receive(batchID) { update in
                    screen.withLock { screen in self.show(update, on: &screen, terminal) }
                }
                return true
            }
            defer {
                group.cancelAll()
                screen.withLock { Self.clear(&$0) }
            }
            while let isFinished = try await group.next(), !isFinished {}
        }
        let progress = screen.current.progress
        if self.options.output == .text {
            let lines = [progress.line(elapsed: .now - started)] + progress.summary(style: terminal.style)
            StandardOutput.write(lines.map { $0 + "\n" }.joined())
        }
        return progress.status
    }

    private func show(_ update: V1.WatchSagasResponse, on screen: inout Screen, _ terminal: Terminal) {
        var lines: [String] = []
        if let saga = update.saga { lines = screen.progress.apply(saga, style: terminal.style) }
        if let event = update.event { lines = screen.progress.apply(event, style: terminal.style) }
        if self.options.output == .json {
            StandardOutput.write(update.json(.compact) + "\n")
        } else if !lines.isEmpty {
            Self.clear(&screen)
            StandardOutput.write(lines.map { $0 + "\n" }.joined())
        }
    }

    private static func clear(_ screen: inout Screen) {
        if screen.isDrawn { StandardError.write("\r\u{1b}[K") }
        screen.isDrawn = false
    }

    /// Each stream begins with the sagas as they are: what was seen before changes nothing.
    private func receive(_ batchID: String, _ body: (V1.WatchSagasResponse) -> Void) async throws {
        let request = V1.WatchSagasRequest.with {
            $0.batchID = batchID
            $0.endWhenDone = true
        }
        var giveUpAt = ContinuousClock.now + self.patience
        var delay = Retry.initialDelay
        while true {
            do {
                return try await self.client.watchSagas(request) { update in
                    body(update)
                    giveUpAt = .now + self.patience
                    delay = Retry.initialDelay
                }
            } catch let failure as CallFailure where failure.isRetryable {
                let wait = failure.pushback ?? delay
                if ContinuousClock.now + wait >= giveUpAt { throw failure }
                try await Task.sleep(for: wait)
                delay = min(delay * 2, Retry.maximumDelay)
            }
        }
    }
}
