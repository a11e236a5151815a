/// Which sagas to list; all conditions hold at once. Empty means any.
public struct SagaFilter: Sendable, Equatable {
    public var statuses: [SagaStatus] = []
    public var type = ""
    public var userID = ""
    /// What the saga is about (UUID text).
    public var resourceID = ""
    public var batchID = ""
    /// What is outside of it is left out.
    public var visibility = Visibility.all

    public init(
        statuses: [SagaStatus] = [], type: String = "", userID: String = "", resourceID: String = "",
        batchID: String = "", visibility: Visibility = .all
    ) {
        self.statuses = statuses
        self.type = type
        self.userID = userID
        self.resourceID = resourceID
        self.batchID = batchID
        self.visibility = visibility
    }
}

/// Pages of saga ids, newest first: a keyset over the id, which begins with the creation time.
struct SagaList: Sendable {
    let pool: PostgresPool

    func ids(
        _ filter: SagaFilter, before: SagaID?, limit: Int, until deadline: ContinuousClock.Instant?
    ) async throws(SagaRuntimeError) -> [SagaID] {
        var parameters = SQLParameters()
        // Beyond every id: '~' sorts after all that an id can hold.
        parameters.append(before?.rawValue ?? "saga_~")
        parameters.append(Int64(limit))
        parameters.append(array: filter.statuses.map(\.name))
        parameters.append(filter.type)
        let visible = filter.visibility.parameters
        var statement = Self.all
        if !filter.resourceID.isEmpty {
            statement = Self.byResource
            parameters.append(visible.user)
            parameters.append(visible.tenant)
            parameters.append(uuid: filter.resourceID)
            parameters.append(filter.userID)
            parameters.append(filter.batchID)
        } else if !filter.batchID.isEmpty {
            statement = Self.byBatch
            parameters.append(visible.user)
            parameters.append(visible.tenant)
            parameters.append(filter.batchID)
            parameters.append(filter.userID)
        } else if !filter.userID.isEmpty {
            statement = Self.byUser
            parameters.append(visible.user)
            parameters.append(visible.tenant)
            parameters.append(filter.userID)
        } else if let user = visible.user {
            statement = Self.visible
            parameters.append(user)
            parameters.append(visible.tenant)
        } else if filter.statuses == [.parked] {
            statement = Self.parked
        }
        do {
            return try await self.pool.run(SQLQuery(statement, parameters), until: deadline).compactMapThrowing {
                (row) throws(PostgresError) in SagaID(try row.text(0))
            }
        } catch {
            throw .database(error)
        }
    }

    private static let statusCondition = """
        (cardinality($3::text[]) = 0 OR s.status::text = ANY ($3::text[])) AND ($4 = '' OR s.saga_type = $4)
        """

    private static let all = SQLStatement(
        "saga_list_all",
        """
        SELECT s.saga_id FROM saga_state s WHERE s.saga_id < $1 AND \(Self.statusCondition)
        ORDER BY s.saga_id DESC LIMIT $2
        """)

    private static let parked = SQLStatement(
        "saga_list_parked",
        """
        SELECT s.saga_id FROM saga_state s
        WHERE s.status = 'PARKED' AND s.saga_id < $1 AND \(Self.statusCondition)
        ORDER BY s.saga_id DESC LIMIT $2
        """)

    /// $5, $6: whose sagas may be seen; null, null: everybody's.
    private static let visibleCondition = "($5::text IS NULL OR e.user_id = $5 OR e.tenant_id = $6)"

    private static func searched(_ name: String, _ condition: String) -> SQLStatement {
        SQLStatement(
            name,
            """
            SELECT s.saga_id FROM saga_event e JOIN saga_state s ON s.saga_id = e.saga_id
            WHERE \(condition) AND e.saga_id < $1 AND \(Self.statusCondition) AND \(Self.visibleCondition)
            ORDER BY e.saga_id DESC LIMIT $2
            """)
    }

    private static let byUser = Self.searched("saga_list_user", "e.user_id = $7")
    private static let byBatch = Self.searched("saga_list_batch", "e.batch_id = $7 AND ($8 = '' OR e.user_id = $8)")
    private static let byResource = Self.searched(
        "saga_list_resource", "e.resource_id = $7 AND ($8 = '' OR e.user_id = $8) AND ($9 = '' OR e.batch_id = $9)")

    /// A page from each of two indexes, and of both together the newest.
    private static let visible = SQLStatement(
        "saga_list_visible",
        """
        SELECT v.saga_id FROM (
            (\(Self.newest("e.user_id = $5"))) UNION (\(Self.newest("e.tenant_id = $6")))
        ) AS v
        ORDER BY v.saga_id DESC LIMIT $2
        """)

    private static func newest(_ condition: String) -> String {
        """
        SELECT s.saga_id FROM saga_event e JOIN saga_state s ON s.saga_id = e.saga_id
        WHERE \(condition) AND e.saga_id < $1 AND \(Self.statusCondition)
        ORDER BY e.saga_id DESC LIMIT $2
        """
    }
}

extension SQLRows {
    /// `compactMap` with a typed error.
    func compactMapThrowing<Value>(
        _ transform: (SQLRow) throws(PostgresError) -> Value?
    ) throws(PostgresError) -> [Value] {
        var values: [Value] = []
        for row in self {
            if let value = try transform(row) { values.append(value) }
        }
        return values
    }
}
