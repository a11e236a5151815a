/// Sagas of one type that are under way.
public struct UnfinishedSagas: Sendable, Equatable {
    public var count: Int
    /// How long ago the oldest of them was created.
    public var age: Duration

    public init(count: Int, age: Duration) {
        self.count = count
        self.age = age
    }

    static func query(_ group: SagaLeafGroup) -> String {
        let rows = group.leaves.map {
            "SELECT saga_type, created_at FROM \($0.state) WHERE status IN ('RUNNING', 'COMPENSATING')"
        }
        return """
            SELECT saga_type, count(*), (extract(epoch FROM saga_now() - min(created_at)) * 1000000)::bigint
            FROM (\(rows.joined(separator: " UNION ALL "))) s GROUP BY 1
            """
    }
}
