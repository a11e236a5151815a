/// The definitions that this binary knows, by type and version.
public struct SagaRegistry: Sendable {
    private var definitions: [String: [Int: SagaDefinition]] = [:]
    /// The first thing found wrong with them.
    private(set) var problem: SagaDefinitionError?

    public init(_ definitions: [SagaDefinition]) {
        var statements = Statements()
        for definition in definitions {
            let title = "\(definition.type) version \(definition.version)"
            if self.definitions[definition.type]?[definition.version] != nil {
                self.problem = self.problem ?? SagaDefinitionError(description: "\(title) is defined twice")
            }
            self.problem =
                self.problem ?? Self.problem(of: definition, title) ?? statements.problem(with: definition, title)
            self.definitions[definition.type, default: [:]][definition.version] = definition
        }
    }

    public subscript(type: String, version: Int) -> SagaDefinition? { self.definitions[type]?[version] }

    /// What new sagas of a type run, given which features all live instances know.
    public func newest(_ type: String, knowing isKnown: (String) -> Bool = { _ in true }) -> SagaDefinition? {
        self.definitions[type]?.filter { $0.value.requiredFeature.map(isKnown) ?? true }.max { $0.key < $1.key }?.value
    }

    var all: [SagaDefinition] { self.definitions.values.flatMap(\.values) }

    private static func problem(of definition: SagaDefinition, _ title: String) -> SagaDefinitionError? {
        let names = definition.steps.map(\.name)
        let text: String? =
            if definition.type.isEmpty || !(1...Int(Int16.max)).contains(definition.version) {
                "needs a type and a version from 1 to \(Int16.max)"
            } else if names.isEmpty || names.count > SagaDefinition.maximumSteps {
                "needs from 1 to \(SagaDefinition.maximumSteps) steps"
            } else if names.contains("") || Set(names).count < names.count {
                "needs steps of different names"
            } else if !names.indices.contains(definition.provisionedStep) {
                "has no step \(definition.provisionedStep)"
            } else {
                nil
            }
        return text.map { SagaDefinitionError(description: "\(title) \($0)") }
    }

    /// The journal prepares a statement once for its name, whoever it comes from.
    private struct Statements {
        /// Together with what the journal puts before it, a name must be no longer than PostgreSQL's.
        private static let longestName = 32

        private var texts: [String: String] = [:]

        mutating func problem(with definition: SagaDefinition, _ title: String) -> SagaDefinitionError? {
            for step in definition.steps {
                for action in step.databaseSteps {
                    if let problem = self.problem("step", action.name, action.ctes, title) { return problem }
                }
                for effect in step.onSucceeded + step.onCompensating + step.onCompensated {
                    if let problem = self.problem("side", effect.name, effect.statement, title) { return problem }
                }
            }
            return nil
        }

        private mutating func problem(
            _ kind: String, _ name: String, _ text: String, _ title: String
        ) -> SagaDefinitionError? {
            guard !name.isEmpty, name.utf8.count <= Self.longestName else {
                return SagaDefinitionError(
                    description: "\(title): the statement's name \"\(name)\" is not 1 to \(Self.longestName) bytes long"
                )
            }
            let known = self.texts.updateValue(text, forKey: "\(kind) \(name)")
            guard let known, known != text else { return nil }
            return SagaDefinitionError(
                description: "\(title): another statement is called \"\(name)\" too; two of one name must be equal")
        }
    }
}
