/// How the files and sockets that this process may have open (RLIMIT_NOFILE) are shared out.
///
/// First comes what keeps the server alive: its own files, the database, the operators' port, some connections to whom
/// sagas call. Clients have what is left. All of it must hold, for a process that has none left doesn't live long:
/// libdispatch looks after its threads in /proc every second, and ends the process when it can't open a file there.
struct DescriptorBudget: Equatable, Sendable {
    /// What the server would take if it could.
    struct Wish: Sendable {
        /// At a time, of clients.
        var connections: Int
        var journalConnections: Int
        /// For reading: queries of callers, and the server's own.
        var readConnections: Int
        /// Each has three.
        var eventLoops: Int
        /// At a time, to the user service and to the provider's engine; 0: there is none.
        var userServiceConnections: Int
        var engineConnections: Int
    }

    /// There are fewer than the server needs to live.
    struct TooFew: Error, Equatable {
        var limit: Int
        var needed: Int
    }

    /// Standard files, listeners, log and key files, /proc, pipes of the embedded PostgreSQL's start.
    static let ownFiles = 48
    /// The lease, LISTEN, a migration, and connections that are made while the ones before are still being closed.
    static let otherDatabaseConnections = 8
    /// A socket, and the pair by which its thread is woken.
    static let filesPerDatabaseConnection = 3
    static let operatorConnections = 32
    /// With fewer, a server is of no use.
    static let fewestConnections = 16
    static let fewestOutgoing = 16

    /// Connections of clients at a time.
    let connections: Int
    let userServiceConnections: Int
    let engineConnections: Int
    /// What would do for all that is wished for.
    let wanted: Int

    init(limit: Int, _ wish: Wish) throws(TooFew) {
        // A journal's successor connects while its own connections still live (a new instance after a fencing).
        let database = 2 * wish.journalConnections + wish.readConnections + Self.otherDatabaseConnections
        let fixed =
            Self.ownFiles + 3 * wish.eventLoops + Self.filesPerDatabaseConnection * database
            + Self.operatorConnections
        let outgoing = [wish.userServiceConnections, wish.engineConnections]
        let fewestOutgoing = outgoing.map { min($0, Self.fewestOutgoing) }
        let needed = fixed + fewestOutgoing.reduce(0, +) + min(wish.connections, Self.fewestConnections)
        guard limit >= needed else { throw TooFew(limit: limit, needed: needed) }
        // Whom sagas call have half of what is left, if they want it, in equal parts.
        let part = (limit - fixed) / 2 / max(1, outgoing.count { $0 > 0 })
        let granted = zip(outgoing, fewestOutgoing).map { wished, fewest in min(wished, max(fewest, part)) }
        self.userServiceConnections = granted[0]
        self.engineConnections = granted[1]
        self.connections = min(wish.connections, limit - fixed - granted.reduce(0, +))
        self.wanted = fixed + outgoing.reduce(0, +) + wish.connections
    }
}
