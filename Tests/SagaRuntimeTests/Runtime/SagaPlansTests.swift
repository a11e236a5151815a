import Logging
import TestSupport
import Testing

@testable import SagaRuntime

@Suite struct SagaPlansTests {
    private static let step = ScriptedStep()

    private static func definition(
        _ type: String, version: Int = 1, _ steps: [String], actions: [DatabaseStep] = [], effects: [SideEffect] = []
    ) -> SagaDefinition {
        SagaDefinition(
            type: type, version: version,
            steps: steps.enumerated().map { index, name in
                StepDefinition(
                    name: name,
                    action: actions.indices.contains(index) ? .database(actions[index]) : .remote(Self.step),
                    onSucceeded: effects)
            }, provisionedStep: max(0, steps.count - 1))
    }

    private static func action(_ name: String, _ ctes: String) -> DatabaseStep {
        DatabaseStep(name: name, ctes: ctes, argument: { _ in "null" }, refusal: nil)
    }

    private static func effect(_ name: String, _ statement: String) -> SideEffect {
        SideEffect(name: name, statement: statement, argument: { _ in "null" })
    }

    // MARK: Definitions agree with each other

    @Test func definitionsThatAgree() {
        // Two versions share statements, and a step and a side effect of one name are two statements.
        let one = Self.definition(
            "A", ["X", "Y"], actions: [Self.action("s", "1")], effects: [Self.effect("s", "2")])
        let two = Self.definition(
            "A", version: 2, ["X", "Z"], actions: [Self.action("s", "1")], effects: [Self.effect("s", "2")])
        #expect(SagaRegistry([one, two]).problem == nil)
        #expect(SagaRegistry([]).problem == nil)
    }

    @Test(arguments: [
        [definition("A", ["X"], actions: [action("s", "1")]), definition("B", ["X"], actions: [action("s", "2")])],
        [
            definition("A", ["X"], effects: [effect("s", "1")]),
            definition("A", version: 2, ["X"], effects: [effect("s", "2")]),
        ],
        [definition("A", ["X", "Y"], actions: [action("s", "1"), action("s", "2")])],
        [definition("A", ["X"], actions: [action("", "1")])],
        [definition("A", ["X"], effects: [effect(String(repeating: "n", count: 33), "1")])],
        [definition("A", ["X"]), definition("A", ["X"])], [definition("A", [])], [definition("A", ["X", "X"])],
        [definition("", ["X"])], [definition("A", version: 0, ["X"])], [definition("A", version: 40_000, ["X"])],
        [definition("A", (0...255).map { "S\($0)" })],
    ])
    func definitionsThatDont(definitions: [SagaDefinition]) {
        #expect(SagaRegistry(definitions).problem != nil)
    }

    @Test func runtimeDoesNotStartWithThem() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let runtime = SagaRuntime(
            configuration: SagaRuntimeConfiguration(
                connection: database.engineConfiguration, instanceName: "a", dataDirectory: nil),
            definitions: [Self.definition("A", ["X", "X"])],
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        await #expect(throws: SagaDefinitionError.self) { try await runtime.run() }
    }

    // MARK: Plans in the database

    private static func plans(_ pool: PostgresPool, _ definitions: [SagaDefinition]) -> SagaPlans {
        SagaPlans(pool: pool, definitions: SagaRegistry(definitions))
    }

    @Test func anyBinaryKnowsThePlansOfAll() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let pool = PostgresPool(database.engineConfiguration, size: 1, maximumWaiters: 10)
        let older = Self.plans(pool, [Self.definition("A", ["X", "Y"])])
        try await older.publish()
        #expect(older["A", 1] == SagaPlans.Plan(stepNames: ["X", "Y"], provisionedStep: 1))
        #expect(older["A", 2] == nil)
        let newer = Self.plans(
            pool, [Self.definition("A", ["X", "Y"]), Self.definition("A", version: 2, ["P", "Q", "R"])])
        try await newer.publish()
        try await newer.publish()
        try await older.load()
        #expect(older["A", 2] == SagaPlans.Plan(stepNames: ["P", "Q", "R"], provisionedStep: 2))
        // What no program can have written is left out.
        try await pool.execute("INSERT INTO saga_plan VALUES ('B', 1, '{}', '{}', 0)")
        try await newer.load()
        #expect(newer["B", 1] == nil && newer["A", 2] != nil)
        await pool.shutdown()
    }

    @Test func stepsThatChangeNeedANewVersion() async throws {
        let database = try await TestDatabase.make(migrations: SagaMigrations.all)
        let pool = PostgresPool(database.engineConfiguration, size: 1, maximumWaiters: 10)
        try await Self.plans(pool, [Self.definition("A", ["X", "Y"])]).publish()
        await #expect(throws: SagaDefinitionError.self) {
            try await Self.plans(pool, [Self.definition("A", ["Y", "X"])]).publish()
        }
        await pool.shutdown()
    }
}
