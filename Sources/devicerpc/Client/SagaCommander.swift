import DeviceRPC
import RPCTransport

/// Gives many sagas one command, at a bounded rate, and says of each what came of it.
struct SagaCommander {
    /// Calls at once: a command may have to wait for a step's call.
    private static let parallel = 64

    /// Commands a second.
    let rate: Int
    let options: ClientOptions
    /// Gives one saga the command.
    let command: @Sendable (_ sagaID: String) async throws -> V1.Saga
    /// Whether an answer says that nobody has obeyed it yet.
    let isPending: @Sendable (V1.Saga) -> Bool

    /// - Throws: `Exit`, unless all have succeeded.
    func run(_ ids: [String]) async throws {
        try await EachOfMany.run(ids, rate: self.rate, parallel: Self.parallel) { try await self.run($0) }
    }

    private func run(_ id: String) async throws -> CommandStatus {
        do {
            let saga = try await self.command(id)
            let isPending = self.isPending(saga)
            switch self.options.output {
            case .json:
                StandardOutput.write(
                    "{\"sagaId\":\(JSONText.quoted(id)),\"isPending\":\(isPending),\"saga\":\(saga.json(.compact))}\n")
            case .text:
                let note = isPending ? "  (given, and not obeyed yet)" : ""
                StandardOutput.write(Printable.text("\(id)  \(DeviceText.status(saga))\(note)") + "\n")
            }
            return isPending ? .timedOut : .success
        } catch let failure as CallFailure {
            switch self.options.output {
            case .json:
                StandardOutput.write("{\"sagaId\":\(JSONText.quoted(id)),\(failure.json().dropFirst())")
            case .text:
                let reason = failure.reason.isEmpty ? failure.code.name : failure.reason
                StandardOutput.write(Printable.text("\(id)  \(reason): \(failure.message)") + "\n")
            }
            return failure.status
        }
    }
}
