import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import RPCTransport

/// A server on a free port and a client of it, for one test.
func withLoopback(
    _ services: [RPCService], interceptors: [any RPCInterceptor] = [],
    configure: (inout RPCServerConfiguration) -> Void = { _ in },
    configureClient: (inout RPCClientConfiguration) -> Void = { _ in },
    _ body: (RPCClient, RPCServer, Int) async throws -> Void
) async throws {
    var configuration = RPCServerConfiguration(port: 0)
    configuration.drainTimeout = .seconds(5)
    configure(&configuration)
    let server = RPCServer(configuration: configuration, services: services, interceptors: interceptors)
    let port = try await server.start().port ?? 0
    var clientConfiguration = RPCClientConfiguration(port: port)
    configureClient(&clientConfiguration)
    let client = RPCClient(clientConfiguration)
    let running = Task { try await server.run() }
    do {
        try await body(client, server, port)
    } catch {
        await client.close()
        running.cancel()
        _ = try? await running.value
        throw error
    }
    await client.close()
    running.cancel()
    try await running.value
}

/// A server on a port that it can come back to: below those that the system gives out by itself, to other tests and to
/// clients' own ends, also of those that look for the server while it is away.
func serverToComeBack(_ services: [RPCService]) async throws -> (server: RPCServer, port: Int) {
    while true {
        let port = Int.random(in: 20_000..<32_000)
        let server = RPCServer(configuration: RPCServerConfiguration(port: port), services: services)
        do {
            try await server.start()
            return (server, port)
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            continue
        }
    }
}

/// Starts a server on the port that another one has left; whoever has taken it meanwhile (a port of nobody is anybody's) is
/// waited for.
func comeBack(to port: Int, _ services: [RPCService]) async throws -> RPCServer {
    while true {
        let server = RPCServer(configuration: RPCServerConfiguration(port: port), services: services)
        do {
            try await server.start()
            return server
        } catch let error as IOError where error.errnoCode == EADDRINUSE {
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}

/// Suspends a handler for certain. A sleep or a yield may be over before the task has come to wait for it, and then the task
/// goes straight on; an event loop comes to resuming it only once it has left the loop's thread.
func suspend() async {
    guard let eventLoop = MultiThreadedEventLoopGroup.currentEventLoop else { return await Task.yield() }
    await withCheckedContinuation { continuation in eventLoop.execute { continuation.resume() } }
}

/// Runs a call that is to fail, and gives its status.
func status(_ body: () async throws -> Void) async -> RPCError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? RPCError
    }
}

extension ByteBuffer {
    init(text: String) { self.init(string: text) }

    var text: String { String(buffer: self) }
}

/// Something that a handler and a test wait for together.
final class Signal: Sendable {
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init() { (self.stream, self.continuation) = AsyncStream.makeStream(of: Void.self) }

    func fire() { self.continuation.yield(()) }

    /// Fails the test after half a minute.
    func wait() async {
        let isFired = await withTaskGroup(of: Bool.self) { group in
            group.addTask {
                for await _ in self.stream { return true }
                return false
            }
            group.addTask {
                try? await Task.sleep(for: .seconds(30))
                return false
            }
            defer { group.cancelAll() }
            return await group.next() ?? false
        }
        if !isFired { Issue.record("nothing happened") }
    }
}

/// A number that tasks count together.
final class Counter: Sendable {
    private let value = Atomic<Int>(0)

    var count: Int { self.value.load(ordering: .relaxed) }

    func increment() { self.value.add(1, ordering: .relaxed) }
}

/// Waits until the condition holds; false after ten seconds.
func eventually(_ condition: () -> Bool) async -> Bool {
    for _ in 0..<1000 {
        if condition() { return true }
        try? await Task.sleep(for: .milliseconds(10))
    }
    return condition()
}
