import Glibc
import Testing

@testable import devicerpc

@Suite struct ShutdownSignalsTests {
    @Test(.timeLimit(.minutes(1))) func aSignalOfTheFirstMomentIsHeard() async throws {
        let signals = ShutdownSignals { _, _ in }
        kill(getpid(), SIGTERM)
        while !signals.isStopping { try await Task.sleep(for: .milliseconds(1)) }
        for number in [SIGTERM, SIGINT] { _ = signal(number, SIG_DFL) }
        #expect(!signals.handle {})
    }
}
