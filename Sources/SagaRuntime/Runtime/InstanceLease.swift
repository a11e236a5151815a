import Logging
import Synchronization

/// Why this process may not become an instance.
public struct InstanceLeaseError: Error, Sendable, CustomStringConvertible {
    public var description: String
}

/// This process as an instance: a row with a lease, renewed by a connection of its own (docs/architecture.md).
///
/// A process trusts its own lease until the lease's length after the last successful renewal was *sent*, on its own
/// CLOCK_BOOTTIME. Others take it for dead once they have seen `lease_until` unchanged for that long, on theirs: the
/// database's clock may be another host's after a failover, and be ahead or behind (`LeaseWatch`). Being fenced is permanent.
final class InstanceLease: Sendable {
    struct Configuration: Sendable {
        var connection: PostgresConfiguration
        var name: String
        var duration: Duration
        var renewal: Duration
        /// Trust ends this much before the lease does.
        var margin: Duration = .milliseconds(500)

        /// For the lease alone: a request that hangs is given up while there is time for another one. A server that is slow to
        /// let one in has its time all the same, and a second attempt beside it.
        fileprivate var leaseConnection: PostgresConfiguration {
            var configuration = self.connection
            let limit = max(self.renewal, .seconds(1))
            configuration.applicationName += "-lease"
            configuration.connectRounds = 2
            configuration.requestTimeout = min(configuration.requestTimeout, limit)
            configuration.statementTimeout = min(configuration.statementTimeout, limit)
            return configuration
        }
    }

    let instanceID: Int64
    private let configuration: Configuration
    private let clock: DatabaseClock
    private let surroundings: Surroundings
    private let logger: Logger
    /// Boot time (nanoseconds) of the last successful renewal's sending.
    private let renewed: Atomic<Int64>
    /// Since when (boot time, nanoseconds) every renewal has succeeded; 0: the last one failed.
    private let steadySince: Atomic<Int64>
    private let fenced = Atomic<Bool>(false)
    /// What this instance has seen of the others' leases.
    private let watch: Mutex<LeaseWatch>
    private let peers = Atomic<Bool>(false)

    private static let retryPause = Duration.milliseconds(200)

    private init(
        instanceID: Int64, configuration: Configuration, clock: DatabaseClock, logger: Logger, sent: BootTime
    ) {
        self.instanceID = instanceID
        self.configuration = configuration
        self.clock = clock
        self.surroundings = clock.surroundings
        self.logger = logger
        self.watch = Mutex(LeaseWatch(leaseDuration: configuration.duration))
        self.renewed = Atomic(sent.nanoseconds)
        self.steadySince = Atomic(sent.nanoseconds)
    }

    // MARK: What others ask

    /// How long ago the last successful renewal was sent.
    var age: Duration { self.surroundings.now - BootTime(nanoseconds: self.renewed.load(ordering: .relaxed)) }

    /// Whether effects may start now.
    var isTrusted: Bool {
        !self.isFenced && self.age < self.configuration.duration - self.configuration.margin
    }

    /// Another instance, or this one when it left, ended this instance for good.
    var isFenced: Bool { self.fenced.load(ordering: .acquiring) }

    /// Other live instances were seen lately.
    var hasPeers: Bool { self.peers.load(ordering: .relaxed) }

    /// Nobody adopts before it has itself renewed for a whole lease, without a failure: after an outage of the database
    /// everybody looks dead, and this is the time in which the living come back.
    var mayFenceOthers: Bool {
        let since = self.steadySince.load(ordering: .relaxed)
        let renewed = BootTime(nanoseconds: self.renewed.load(ordering: .relaxed))
        return since != 0 && renewed - BootTime(nanoseconds: since) >= self.configuration.duration && self.isTrusted
    }

    // MARK: Registering

    private static let register = SQLStatement(
        "instance_register",
        """
        WITH epoch AS (
            UPDATE saga_clock SET epoch = epoch + 1
            WHERE NOT EXISTS (SELECT 1 FROM saga_instance WHERE NOT fenced AND lease_until > saga_now())
        )
        INSERT INTO saga_instance (instance_id, name, nonce, lease_until, features)
        VALUES (nextval('saga_instance_id'), $1, gen_random_uuid(), saga_now() + $2 * interval '1 microsecond', $3)
        ON CONFLICT (name) WHERE NOT fenced DO NOTHING
        RETURNING instance_id, saga_now(), nonce
        """)

    private static let holder = SQLStatement(
        "instance_holder",
        """
        SELECT instance_id, lease_until, lease_until > saga_now(),
            extract(epoch FROM lease_until - saga_now())::bigint
        FROM saga_instance WHERE name = $1 AND NOT fenced
        """)

    /// Registers this process under its name.
    ///
    /// - Parameter lock: the proof that the instance which it names is dead: that one is fenced at once.
    /// - Throws: `InstanceLeaseError` if another live process holds the name; `PostgresError`.
    static func register(
        _ configuration: Configuration, lock: InstanceLock?, clock: DatabaseClock, logger: Logger
    ) async throws -> InstanceLease {
        let connection = try await PostgresConnection.connect(configuration.leaseConnection)
        do {
            let lease = try await Self.register(configuration, lock, clock, logger, on: connection)
            await connection.close()
            return lease
        } catch {
            await connection.close()
            throw error
        }
    }

    private static func register(
        _ configuration: Configuration, _ lock: InstanceLock?, _ clock: DatabaseClock, _ logger: Logger,
        on connection: PostgresConnection
    ) async throws -> InstanceLease {
        // On the same boot of this machine, and with the lock in hand, the predecessor is dead.
        if let predecessor = lock?.predecessor() {
            let isFenced = try await Self.fence(
                predecessor.instanceID, if: .named(nonce: predecessor.nonce), on: connection)
            if isFenced {
                logger.info("[SAGA] the instance before this one is dead: fenced \(predecessor.instanceID)")
            }
        }
        var watch = LeaseWatch(leaseDuration: configuration.duration)
        var firstSeen: (instance: Int64, leaseUntil: Timestamp)?
        while true {
            var parameters = SQLParameters()
            parameters.append(configuration.name)
            parameters.append(configuration.duration.wholeMicroseconds)
            parameters.append(array: ClusterFeatures.published)
            let sent = clock.surroundings.now
            if let row = try await connection.run(SQLQuery(Self.register, parameters)).first {
                clock.learn(try row.timestamp(1), sent: sent, received: clock.surroundings.now)
                let lease = InstanceLease(
                    instanceID: try row.int64(0), configuration: configuration, clock: clock, logger: logger, sent: sent
                )
                lock?.record(InstanceLock.Holder(instanceID: lease.instanceID, nonce: try row.uuid(2)))
                return lease
            }
            // The name is held: by the dead, until their lease is over, or by the living, who renew it.
            var name = SQLParameters()
            name.append(configuration.name)
            guard let holder = try await connection.run(SQLQuery(Self.holder, name)).first else { continue }
            let (instance, leaseUntil) = (try holder.int64(0), try holder.timestamp(1))
            watch.observe([instance: leaseUntil], since: nil, at: clock.surroundings.now)
            let isExpired = try !holder.bool(2)
            if isExpired || watch.isOver(instance, at: clock.surroundings.now) {
                try await Self.fence(instance, if: .unchanged(leaseUntil), on: connection)
                continue
            }
            if firstSeen == nil {
                let seconds = try holder.int64(3)
                logger.notice(
                    "[SAGA] waiting for the name \(configuration.name): instance \(instance) held it before and hasn't left",
                    metadata: [
                        "its_lease_seconds": "\(seconds)",
                        "at_most_seconds": "\(configuration.duration.components.seconds)",
                    ])
            }
            if let firstSeen, firstSeen.instance != instance || firstSeen.leaseUntil != leaseUntil {
                throw InstanceLeaseError(
                    description: "DEVICERPC_INSTANCE: another live process holds the name \(configuration.name); "
                        + "every replica needs a name of its own")
            }
            firstSeen = (instance, leaseUntil)
            try await clock.surroundings.sleep(for: Self.retryPause)
        }
    }

    private static let recordBackend = SQLStatement(
        "instance_backend",
        "UPDATE saga_instance SET backend_pids[$2] = $3, backend_starts[$2] = $4 WHERE instance_id = $1")

    /// Writes down which backend writes for this instance, so that whoever fences it can end it. A connection that
    /// can't be written down (the database may be read-only) is closed: it must not be used.
    ///
    /// - Parameter slot: from 0; a later connection in the same slot takes the place of the one before.
    /// - Throws: what went wrong with the connection.
    func register(backend: PostgresConnection, slot: Int) async throws(PostgresError) {
        var parameters = SQLParameters()
        parameters.append(self.instanceID)
        parameters.append(Int32(clamping: slot + 1))
        parameters.append(backend.backendPID)
        parameters.append(backend.backendStart)
        do {
            // By that very connection: nothing that it writes can come before the news of it.
            _ = try await backend.run(SQLQuery(Self.recordBackend, parameters))
        } catch {
            await backend.close()
            throw error
        }
    }

    // MARK: Renewing

    private static let renew = SQLStatement(
        "instance_renew",
        """
        UPDATE saga_instance SET lease_until = saga_now() + $2 * interval '1 microsecond'
        WHERE instance_id = $1 AND NOT fenced
        RETURNING saga_now(),
            EXISTS (SELECT 1 FROM saga_instance o WHERE o.instance_id <> $1 AND NOT o.fenced)
        """)

    /// The clock has stepped: how long a saga has slept can't be told.
    private static let raiseEpoch = SQLStatement("instance_raise_epoch", "UPDATE saga_clock SET epoch = epoch + 1")

    /// Renews until fenced or cancelled, on a connection of its own, before everything else that this process does.
    func run() async {
        var connection: PostgresConnection?
        while !Task.isCancelled, !self.isFenced {
            do {
                let line: PostgresConnection
                if let connection {
                    line = connection
                } else {
                    line = try await PostgresConnection.connect(self.configuration.leaseConnection)
                    connection = line
                }
                try await self.renewOnce(on: line)
                try? await self.surroundings.sleep(for: self.configuration.renewal)
            } catch {
                self.steadySince.store(0, ordering: .relaxed)
                self.logger.log(.warning, cause: "lease", "[SAGA] the lease was not renewed: \(error)")
                await connection?.close()
                connection = nil
                try? await self.surroundings.sleep(for: Self.retryPause)
            }
        }
        await connection?.close()
    }

    /// Renews the lease, or learns that this instance is fenced.
    func renewOnce(on connection: PostgresConnection) async throws {
        var parameters = SQLParameters()
        parameters.append(self.instanceID)
        parameters.append(self.configuration.duration.wholeMicroseconds)
        let sent = self.surroundings.now
        guard let row = try await connection.run(SQLQuery(Self.renew, parameters)).first else {
            self.fenced.store(true, ordering: .releasing)
            return
        }
        self.clock.learn(try row.timestamp(0), sent: sent, received: self.surroundings.now)
        self.peers.store(try row.bool(1), ordering: .relaxed)
        if self.clock.hasStepped {
            _ = try await connection.run(SQLQuery(Self.raiseEpoch))
            self.clock.stepIsKnown()
        }
        // A gap of a whole lease (this process was stopped, say) is a failure too.
        if self.steadySince.load(ordering: .relaxed) == 0 || self.age >= self.configuration.duration {
            self.steadySince.store(sent.nanoseconds, ordering: .relaxed)
        }
        self.renewed.store(sent.nanoseconds, ordering: .relaxed)
    }

    /// Without a name: a connection of its own uses it once.
    private static func disown(_ leaf: SagaLeaf) -> SQLStatement {
        SQLStatement(
            "",
            """
            UPDATE \(leaf.state) SET owner = 0, version = version + 2,
                unsent_version = CASE WHEN unsent_version = version THEN version + 2 END
            WHERE owner = $1 AND status IN ('RUNNING', 'COMPENSATING')
            """)
    }

    /// Leaves: what this instance still owns may be taken by others at once, and belongs to nobody, so that taking it up
    /// doesn't count as after a crash. Best effort.
    ///
    /// - Parameter leaves: where its sagas may be.
    func release(leaves: [SagaLeaf] = [.parent]) async {
        if let connection = try? await PostgresConnection.connect(self.configuration.leaseConnection) {
            var owner = SQLParameters()
            owner.append(self.instanceID)
            // At once, so that nobody takes a saga in between. In this order: nothing of a fenced instance is being written.
            func leave(_ leaves: [SagaLeaf]) async throws(PostgresError) {
                let fencing = Self.fencing(self.instanceID, if: .always)
                _ = try await connection.transaction([fencing] + leaves.map { SQLQuery(Self.disown($0), owner) })
            }
            do throws(PostgresError) {
                do throws(PostgresError) {
                    try await leave(leaves)
                } catch  where error.isMissingTable {
                    try await leave([.parent])
                }
            } catch {
                _ = try? await Self.fence(self.instanceID, if: .always, on: connection)
            }
            await connection.close()
        }
        self.fenced.store(true, ordering: .releasing)
    }

    // MARK: Fencing others

    /// What must hold of an instance, at the moment of its fencing.
    private enum FencingCondition {
        /// Somebody knows that it is dead, or is it.
        case always
        /// It is the one with this nonce: ids repeat over databases.
        case named(nonce: String)
        /// It has not renewed its lease since that was seen.
        case unchanged(Timestamp)
    }

    private static let others = SQLStatement(
        "instance_others",
        """
        SELECT instance_id, lease_until, lease_until < saga_now() FROM saga_instance
        WHERE NOT fenced AND instance_id <> $1
        """)

    /// One statement, so that no crash in between leaves a fenced instance with backends that nobody ends: a client
    /// that is stopped in mid-pipeline would hold its row locks for ever.
    private static let fence = SQLStatement(
        "instance_fence",
        """
        WITH fenced AS (
            UPDATE saga_instance SET fenced = true
            WHERE instance_id = $1 AND NOT fenced AND (nonce = $2 OR $2 IS NULL) AND (lease_until = $3 OR $3 IS NULL)
            RETURNING backend_pids, backend_starts
        )
        SELECT (SELECT count(*) FROM fenced), count(pg_terminate_backend(a.pid))
        FROM fenced f, unnest(f.backend_pids, f.backend_starts) AS b(pid, start), pg_stat_activity a
        WHERE a.pid = b.pid AND a.backend_start = b.start AND a.pid <> pg_backend_pid()
        """)

    /// Fences every instance whose lease is over, if this one may.
    ///
    /// A lease that the database's clock says is over has been unchanged for half its length too: the living renew theirs
    /// in less, so that a clock that was put forward fences none of them.
    func fenceDeadInstances(using pool: PostgresPool) async throws(PostgresError) {
        var parameters = SQLParameters()
        parameters.append(self.instanceID)
        var leases: [Int64: Timestamp] = [:]
        var expired: Set<Int64> = []
        for row in try await pool.run(SQLQuery(Self.others, parameters)) {
            let instance = try row.int64(0)
            leases[instance] = try row.timestamp(1)
            if try row.bool(2) { expired.insert(instance) }
        }
        let now = self.surroundings.now
        let since = self.steadySince.load(ordering: .relaxed)
        let dead = self.watch.withLock { watch in
            // A gap of our own (the database was away, say) kept the living from renewing: what was seen before it is void.
            watch.observe(leases, since: since == 0 ? now : BootTime(nanoseconds: since), at: now)
            return leases.keys.filter { instance in
                watch.isOver(instance, at: now) || expired.contains(instance) && watch.isHalfOver(instance, at: now)
            }
        }
        guard self.mayFenceOthers else { return }
        for instance in dead.sorted() {
            guard let leaseUntil = leases[instance] else { continue }
            let isFenced = try await pool.withConnection { connection async throws(PostgresError) in
                try await Self.fence(instance, if: .unchanged(leaseUntil), on: connection)
            }
            if isFenced { self.logger.warning("[SAGA] instance \(instance) is dead: fenced it") }
        }
    }

    /// Fences an instance for good and ends its backends.
    ///
    /// - Returns: whether it was this call that did.
    @discardableResult
    private static func fence(
        _ instance: Int64, if condition: FencingCondition, on connection: PostgresConnection
    ) async throws(PostgresError) -> Bool {
        try await connection.run(Self.fencing(instance, if: condition)).single().int64(0) > 0
    }

    private static func fencing(_ instance: Int64, if condition: FencingCondition) -> SQLQuery {
        var nonce: String?
        var leaseUntil: Timestamp?
        switch condition {
        case .always: break
        case .named(let name): nonce = name
        case .unchanged(let seen): leaseUntil = seen
        }
        var parameters = SQLParameters()
        parameters.append(instance)
        parameters.append(uuid: nonce)
        parameters.append(leaseUntil)
        return SQLQuery(Self.fence, parameters)
    }
}
