import SagaRuntime
import TestSupport

@testable import DeviceProvisioning

/// A database with this module's tables, and what the journal does with a step's SQL, without the journal's guard.
struct FlushFixture {
    let database: TestDatabase
    let connection: PostgresConnection
    let pool: PostgresPool

    init(migrations: [Migration] = SagaMigrations.all + DeviceMigrations.all) async throws {
        self.database = try await TestDatabase.make(migrations: migrations)
        self.connection = try await PostgresConnection.connect(self.database.engineConfiguration)
        self.pool = PostgresPool(self.database.engineConfiguration, size: 3, maximumWaiters: 10_000)
    }

    func close() async {
        await self.connection.close()
        await self.pool.shutdown()
    }

    private static let accepted = """
        WITH accepted AS (
            SELECT i.saga_id, i.argument::jsonb AS argument, i.ordinal
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i(saga_id, argument, ordinal))
        """

    private static func parameters(_ arguments: [(SagaID, String)]) -> SQLParameters {
        var parameters = SQLParameters()
        parameters.append(array: arguments.map(\.0.rawValue))
        parameters.append(array: arguments.map(\.1))
        return parameters
    }

    static func statement(_ step: DatabaseStep) -> SQLStatement {
        SQLStatement("test_" + step.name, "\(Self.accepted), \(step.ctes) SELECT saga_id, output FROM granted")
    }

    /// Runs a database step for a batch: output by saga; those that are missing were refused.
    @discardableResult
    func run(
        _ step: DatabaseStep, _ views: [SagaView], on connection: PostgresConnection? = nil
    ) async throws -> [SagaID: String] {
        let rows = try await (connection ?? self.connection).run(
            SQLQuery(Self.statement(step), Self.parameters(views.map { ($0.sagaID, step.argument($0)) })))
        var outputs: [SagaID: String] = [:]
        for row in rows {
            guard let id = SagaID(try row.text(0)) else { continue }
            outputs[id] = try row.optionalText(1) ?? ""
        }
        return outputs
    }

    /// The plan of a database step's statement, prepared as the engine prepares it.
    func plan(_ step: DatabaseStep, _ view: SagaView) async throws -> [String] {
        _ = try await self.run(step, [])
        let id = view.sagaID.rawValue
        let argument = step.argument(view).replacing("'", with: "''")
        return try await self.rows("EXPLAIN EXECUTE test_\(step.name) ('{\(id)}', ARRAY['\(argument)'])")
    }

    /// The plan of a query: generic ones don't look at their parameters.
    func plan(of query: SQLQuery) async throws -> [String] {
        _ = try await self.connection.run(query)
        let nulls = Array(repeating: "NULL", count: query.parameters.count).joined(separator: ", ")
        return try await self.rows("EXPLAIN EXECUTE \(query.statement.name) (\(nulls))")
    }

    func run(_ effect: SideEffect, _ views: [SagaView]) async throws {
        let separator = effect.statement.hasPrefix(",") ? "" : " "
        _ = try await self.connection.run(
            SQLQuery(
                SQLStatement("test_" + effect.name, Self.accepted + separator + effect.statement),
                Self.parameters(views.map { ($0.sagaID, effect.argument($0)) })))
    }

    /// A name stands for one text on a connection.
    private static func once(_ sql: String) -> SQLStatement {
        SQLStatement("test_\(UInt64(bitPattern: Int64(sql.hashValue)))", sql)
    }

    /// The first column of each row, as text.
    func rows(_ sql: String) async throws -> [String] {
        try await self.connection.run(SQLQuery(Self.once(sql))).map { try $0.text(0) }
    }

    func count(_ sql: String) async throws -> Int {
        Int(try await self.connection.run(SQLQuery(Self.once(sql))).single().int64(0))
    }

    /// A saga that begins, for a provider of the given kind.
    static func view(
        _ provider: ProviderKind = .redroid, userID: String = "user-1", memoryMB: Int? = nil
    ) -> SagaView {
        var generator = SystemRandomNumberGenerator()
        let id = SagaID(milliseconds: 1_730_188_800_000, using: &generator)
        let device = DeviceID.mint()
        var request = DeviceRequest(deviceID: device, name: "phone", provider: provider, userID: userID)
        if let memoryMB { request.spec.memoryMB = memoryMB }
        return SagaView(
            sagaID: id, userID: userID, resourceID: device, request: request.encoded(), outputs: [:],
            createdAt: Timestamp(milliseconds: 1_730_188_800_000))
    }
}
