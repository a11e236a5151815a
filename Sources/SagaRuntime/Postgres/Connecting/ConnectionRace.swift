/// Makes one connection where a string names several servers, or a name several addresses.
///
/// They are tried in their order. Whoever has said nothing after a second has the next one started beside it, and goes on
/// until its time is over; the first that lets us in is taken. So a server that accepts and says nothing costs a second.
struct ConnectionRace: Sendable {
    typealias Host = ConnectionString.Host
    /// One attempt, on a thread of its own, within `connectTimeout`.
    typealias Attempt = @Sendable (Host) async -> Result<PostgresConnection, PostgresError>

    /// How long one has to itself before the next one starts.
    static let headStart = Duration.seconds(1)

    /// For each attempt.
    let connectTimeout: Duration
    /// How often the list is gone through while nobody answers: a second attempt may get through where the first one's
    /// packets are lost.
    let rounds: Int
    let attempt: Attempt

    private enum Event: Sendable {
        case addresses(Int, [Host])
        case ended(Int, Result<PostgresConnection, PostgresError>)
        /// The head start of the attempt that started as the given one is over.
        case due(Int)
        case overdue(Int)
    }

    func run(_ hosts: [Host]) async throws(PostgresError) -> PostgresConnection {
        // Nothing to choose from: no need for timers.
        if hosts.count == 1, self.rounds == 1, let only = hosts.first, !only.needsLookUp {
            return try await self.attempt(only).get()
        }
        let (events, continuation) = AsyncStream.makeStream(of: Event.self)
        // Late connections are not taken any more, and close with their last reference.
        defer { continuation.finish() }
        var waiting = hosts[...]
        var rounds = self.rounds - 1
        var running: Set<Int> = []
        var started = 0
        var failures: [PostgresError] = []
        var timers: [Task<Void, Never>] = []
        defer { for timer in timers { timer.cancel() } }

        func after(_ duration: Duration, _ event: Event) {
            timers.append(
                Task {
                    guard (try? await Task.sleep(for: duration)) != nil else { return }
                    continuation.yield(event)
                })
        }
        func startNext() {
            if waiting.isEmpty, rounds > 0 {
                rounds -= 1
                waiting = hosts[...]
            }
            guard let host = waiting.popFirst() else { return }
            started += 1
            let number = started
            running.insert(number)
            after(Self.headStart, .due(number))
            if host.needsLookUp {
                // The resolver's time is bounded by nobody else.
                after(self.connectTimeout + Self.headStart, .overdue(number))
                Task {
                    let addresses = await Self.addresses(of: host)
                    if addresses.isEmpty {
                        // libpq asks once more, and tells why.
                        continuation.yield(.ended(number, await self.attempt(host)))
                    } else {
                        continuation.yield(.addresses(number, addresses))
                    }
                }
            } else {
                Task { continuation.yield(.ended(number, await self.attempt(host))) }
            }
        }

        startNext()
        for await event in events {
            switch event {
            case .ended(_, .success(let connection)):
                return connection
            case .ended(let number, .failure(let error)):
                guard running.remove(number) != nil else { continue }
                failures.append(error)
                if !waiting.isEmpty { startNext() }
            case .addresses(let number, let addresses):
                guard running.remove(number) != nil else { continue }
                waiting = (addresses + waiting)[...]
                startNext()
            case .due(let number):
                if number == started { startNext() }
            case .overdue(let number):
                guard running.remove(number) != nil else { continue }
                failures.append(PostgresError(.connectFailed, "the host's name was not looked up in time"))
                if !waiting.isEmpty { startNext() }
            }
            if running.isEmpty { break }
        }
        throw Self.combined(failures)
    }

    private static func addresses(of host: Host) async -> [Host] {
        let addresses = try? await DedicatedThread.run(name: "postgres-name") { () throws(PostgresError) in
            AddressList.of(host)
        }
        return addresses ?? []
    }

    /// One error for all servers: one that may pass is worth waiting for.
    private static func combined(_ failures: [PostgresError]) -> PostgresError {
        guard var error = failures.first(where: { !$0.isMisconfiguration }) ?? failures.last else {
            return PostgresError(.connectFailed, "no server was tried")
        }
        var messages: [String] = []
        for failure in failures where !messages.contains(failure.message) { messages.append(failure.message) }
        error.message = messages.joined(separator: "; ")
        return error
    }
}
