@testable import SagaRuntime
import TestSupport
import Testing

@Suite struct DatabaseSchemaTests {
    @Test func theTablesThatAreThereComeFirst() throws {
        func choose(_ found: String?, _ current: String?, isOwnWish: Bool = false, _ all: [String]) throws -> String {
            try DatabaseSchema.choose(found: found, current: current, isOwnWish: isOwnWish, all: all)
        }
        #expect(try choose("a", "b", ["a", "c"]) == "a")
        #expect(try choose(nil, "b", ["a"]) == "a")
        #expect(try choose(nil, nil, ["a"]) == "a")
        #expect(try choose(nil, "b", isOwnWish: true, ["a"]) == "b")
        #expect(try choose(nil, "b", []) == "b")
        #expect(try choose(nil, nil, []) == "public")
        #expect(throws: Migrator.Failure.self) { try choose(nil, "b", ["a", "c"]) }
    }

    @Test func aDefaultThatIsChangedLaterLeadsToTheSameTables() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let connection = try await database.connect()
        try await connection.execute(
            "CREATE SCHEMA other; ALTER DATABASE \"\(database.name)\" SET search_path = other, nowhere")
        #expect(try await DatabaseSchema.searchPath(on: database.connect()) == "\"public\"")
        var wish = database.configuration
        wish.conninfo += " options='-c search_path=other'"
        #expect(try await DatabaseSchema.searchPath(on: PostgresConnection.connect(wish)) == "\"other\"")
    }
}
