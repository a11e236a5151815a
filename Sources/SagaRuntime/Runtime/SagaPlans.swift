import Synchronization

/// Definitions don't agree: with each other, or with what the database keeps of the same type and version.
public struct SagaDefinitionError: Error, Sendable, Equatable, CustomStringConvertible {
    public var description: String
}

/// The plans of all sagas of a database: those of this binary's definitions, and in the table `saga_plan` those of any
/// binary that has served it. So any binary can show any saga.
final class SagaPlans: Sendable {
    struct Plan: Sendable, Equatable {
        var stepNames: [String]
        /// See `SagaDefinition.provisionedStep`.
        var provisionedStep: Int
    }

    fileprivate struct Key: Hashable {
        var type: String
        var version: Int
    }

    private struct State {
        var stored: [Key: Plan] = [:]
        var asked: BootTime?
    }

    /// The table is asked at most so often, however many sagas of unknown plans are looked at.
    private static let pause: Duration = .seconds(1)
    /// More than any program has: a bound.
    private static let maximumPlans = 1000

    private let pool: PostgresPool
    private let definitions: SagaRegistry
    private let state = Mutex(State())

    init(pool: PostgresPool, definitions: SagaRegistry) {
        self.pool = pool
        self.definitions = definitions
    }

    subscript(type: String, version: Int) -> Plan? {
        if let definition = self.definitions[type, version] { return Plan(definition) }
        return self.state.withLock { $0.stored[Key(type: type, version: version)] }
    }

    private static let publishStatement = SQLStatement(
        "saga_plan_publish",
        """
        INSERT INTO saga_plan (saga_type, definition_version, step_names, step_kinds, provisioned_step)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
        """)

    /// Writes down the plans of this binary's definitions.
    ///
    /// - Throws: `SagaDefinitionError` if one is stored with other steps: rows name steps by their numbers. `PostgresError`.
    func publish() async throws {
        let known = try await self.read()
        var isNew = false
        for definition in self.definitions.all where known[Key(definition)] == nil {
            isNew = true
            var parameters = SQLParameters()
            parameters.append(definition.type)
            parameters.append(Int16(clamping: definition.version))
            parameters.append(array: definition.steps.map(\.name))
            parameters.append(array: definition.steps.map(\.actionName))
            parameters.append(Int16(clamping: definition.provisionedStep))
            _ = try await self.pool.run(SQLQuery(Self.publishStatement, parameters))
        }
        let stored = isNew ? try await self.read() : known
        for definition in self.definitions.all {
            guard let plan = stored[Key(definition)], plan.stepNames != definition.steps.map(\.name) else { continue }
            throw SagaDefinitionError(
                description: "\(definition.type) version \(definition.version) has the steps "
                    + "\(definition.steps.map(\.name)) here and \(plan.stepNames) in the database's saga_plan; "
                    + "steps that change need a new version")
        }
    }

    /// Reads what other binaries have written, unless that was done a moment ago.
    func load() async throws(PostgresError) {
        let now = self.pool.surroundings.now
        let isDue = self.state.withLock { state in
            if let asked = state.asked, now - asked < Self.pause { return false }
            state.asked = now
            return true
        }
        if isDue { _ = try await self.read() }
    }

    private static let all = SQLStatement(
        "saga_plans",
        """
        SELECT saga_type, definition_version, step_names, provisioned_step FROM saga_plan
        ORDER BY saga_type, definition_version DESC LIMIT \(SagaPlans.maximumPlans)
        """)

    private func read() async throws(PostgresError) -> [Key: Plan] {
        var plans: [Key: Plan] = [:]
        for row in try await self.pool.run(SQLQuery(Self.all)) {
            let names = try row.textArray(2)
            // What this binary couldn't have written is nothing to go by.
            guard !names.isEmpty, names.count <= SagaDefinition.maximumSteps else { continue }
            plans[Key(type: try row.text(0), version: Int(try row.int16(1)))] = Plan(
                stepNames: names, provisionedStep: Int(try row.int16(3)))
        }
        self.state.withLock { $0.stored = plans }
        return plans
    }
}

extension SagaPlans.Plan {
    fileprivate init(_ definition: SagaDefinition) {
        self.init(stepNames: definition.steps.map(\.name), provisionedStep: definition.provisionedStep)
    }
}

extension SagaPlans.Key {
    fileprivate init(_ definition: SagaDefinition) {
        self.init(type: definition.type, version: definition.version)
    }
}

extension StepDefinition {
    /// For whoever reads `saga_plan`.
    fileprivate var actionName: String {
        switch self.action {
        case .remote: "REMOTE"
        case .database: "DATABASE"
        }
    }
}
