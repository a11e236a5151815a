import DeviceProvisioning
import DeviceRPC
import Logging
import RPCTransport
import SagaRuntime
import ServiceLifecycle
import Synchronization

/// The engine, as a part of the service group.
struct RuntimeService: Service {
    /// What calls of sagas under way have at least, to end and be recorded.
    static let leastTime: Duration = .seconds(5)

    let runtime: SagaRuntime
    let gate: ShutdownGate
    /// Counts from the signal on, not from when the connections are drained.
    let drainTimeout: Duration

    func run() async throws {
        try await withGracefulShutdownHandler {
            try await self.runtime.run()
        } onGracefulShutdown: {
            self.runtime.beginGracefulShutdown(
                within: max(self.gate.rest(of: self.drainTimeout), min(self.drainTimeout, Self.leastTime)))
        }
    }
}

/// The gRPC server, as a part of the service group.
struct RPCServerService: Service {
    /// How long after `drainTimeout` the server closes what is left, so that the last answers have left by then.
    static let lastAnswers: Duration = .seconds(2)

    let server: RPCServer
    /// How long calls under way have to end by themselves.
    let drainTimeout: Duration
    /// Answers whoever still waits then.
    let giveUp: @Sendable () -> Void

    func run() async throws {
        let drain = Mutex<Task<Void, Never>?>(nil)
        try await withGracefulShutdownHandler {
            try await self.server.run()
        } onGracefulShutdown: {
            self.server.beginGracefulShutdown()
            drain.withLock { drain in
                drain = Task {
                    guard (try? await Task.sleep(for: self.drainTimeout)) != nil else { return }
                    self.giveUp()
                }
            }
        }
        drain.withLock { $0 }?.cancel()
    }
}

/// Follows the sites, as a part of the service group.
struct SiteService: Service {
    let keeper: SiteKeeper

    func run() async throws {
        await cancelWhenGracefulShutdown { await self.keeper.run() }
    }
}

/// Says what the log has left out, as a part of the service group.
struct LogCausesService: Service {
    private static let interval: Duration = .seconds(5)

    let causes: LogCauses
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                self.causes.tellLeftOut(to: self.logger)
                try? await Task.sleep(for: Self.interval)
            }
        }
    }
}

/// Follows the keys of tokens, as a part of the service group.
struct AuthenticatorService: Service {
    let authenticator: Authenticator?

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await self.authenticator?.run()
            // Nothing to follow, then: until the end.
            while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
        }
    }
}

/// Waits until the server takes calls, and says so.
struct ReadyService: Service {
    let state: ServingState
    let onReady: @Sendable () async -> Void

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                if self.state.readiness.isReady {
                    self.state.publish()
                    await self.onReady()
                    return
                }
                try? await Task.sleep(for: .milliseconds(20))
            }
        }
    }
}

/// A service group whose parts can end it.
final class ServiceGroupBox: Sendable {
    private let group = Mutex<ServiceGroup?>(nil)

    func run(_ services: [ServiceGroupConfiguration.ServiceConfiguration], logger: Logger) async throws {
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let group = ServiceGroup(configuration: ServiceGroupConfiguration(services: services, logger: quiet))
        self.group.withLock { $0 = group }
        try await group.run()
    }

    func triggerGracefulShutdown() async {
        await self.group.withLock { $0 }?.triggerGracefulShutdown()
    }
}
