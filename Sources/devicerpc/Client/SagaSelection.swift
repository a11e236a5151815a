import ArgumentParser
import DeviceRPC
import SagaRuntime

/// Which sagas a command is for: those that are named, or those that match and that it has an effect on.
struct SagaSelection: ParsableArguments {
    /// How many of them the preview names.
    private static let shown = 5

    @Argument(
        help: "The sagas' ids; without them, those that the options select.",
        transform: OptionValues.id("saga_1730188800000_k3x9q2m7ab"))
    var sagaIDs: [String] = []

    @Option(
        name: .customLong("status"),
        help: "Select by status: running, compensating, parked; may come several times.")
    var statuses: [String] = []

    @Option(
        help: ArgumentHelp(
            "Select by the reason of the failure, as \"devicerpc sagas\" shows it, e.g. QUOTA_UNAVAILABLE.",
            valueName: "reason"))
    var failureReason: String?

    @Option(name: .customLong("user"), help: "Select this user's.")
    var userID: String?

    @Option(name: .customLong("batch"), help: "Select this batch's.")
    var batchID: String?

    @Flag(help: "Don't ask before the selected ones are commanded. Needed where there is no terminal.")
    var yes = false

    private var selects: Bool {
        !self.statuses.isEmpty || self.failureReason != nil || self.userID != nil || self.batchID != nil
    }

    func validate() throws {
        if self.sagaIDs.isEmpty == !self.selects {
            throw ValidationError("Give either sagas' ids, or options that select some.")
        }
        for id in self.sagaIDs where SagaID(id) == nil {
            throw ValidationError("'\(id)': must be a saga's id, such as saga_1730188800000_7k2m9x4q1c.")
        }
    }

    /// The sagas' ids, once whoever selected them agrees.
    ///
    /// - Parameter action: of `Saga.next_actions`: what it would have no effect on is left out.
    func ids(_ client: DeviceClient, _ options: ClientOptions, for action: String, timeout: Duration) async throws
        -> [String]
    {
        if !self.selects { return self.sagaIDs }
        var selected: [V1.Saga] = []
        var others = 0
        var request = V1.ListSagasRequest()
        request.statuses = try self.statuses.map { try EnumArgument.value($0, "--status") }
        if request.statuses.isEmpty { request.statuses = [.running, .compensating, .parked] }
        request.userID = self.userID ?? ""
        request.batchID = self.batchID ?? ""
        request.pageSize = 1000
        repeat {
            let page = try await client.listSagas(request, timeout: timeout)
            let matching = page.sagas.filter { self.failureReason == nil || $0.failure?.reason == self.failureReason }
            let helped = matching.filter { $0.nextActions.contains(action) }
            selected += helped
            others += matching.count - helped.count
            request.pageToken = page.nextPageToken
        } while !request.pageToken.isEmpty
        try Confirmation.ask(
            action, selected.count, "saga",
            note: others == 0 ? "" : " (\(others) more match, on which it has no effect)",
            preview: { style in
                DeviceText.sagas(Array(selected.prefix(Self.shown)), style: style)
                    + (selected.count > Self.shown ? "… and \(selected.count - Self.shown) more\n" : "")
            }, isGiven: self.yes, options)
        return selected.map(\.sagaID)
    }
}
