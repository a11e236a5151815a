import SagaRuntime

/// One call to the provider: its requests share a deadline and the lease's permission.
///
/// It remembers whether anything may have been made, because that decides what a failure is called: until then an
/// unreachable engine or a lost lease are definite, afterwards the outcome is unknown.
struct RedroidCall {
    let docker: DockerClient
    let deadline: ContinuousClock.Instant
    let authorize: @Sendable () throws(StepError) -> Void
    /// Values that must not appear in messages.
    let secrets: [String]
    /// An effect of this call exists or may exist.
    var mayHaveActed = false

    /// Sends a request that changes something.
    mutating func act(
        _ method: DockerMethod, _ path: String, query: [(String, String)] = [], body: [UInt8]? = nil
    ) async throws(StepError) -> DockerResponse {
        try self.mayGoOn()
        do {
            return try await self.docker.send(method, path, query: query, body: body, until: self.deadline)
        } catch {
            if error.wasSent { self.mayHaveActed = true }
            throw self.unavailable(error.message)
        }
    }

    /// Sends a request that only asks.
    func ask(_ path: String, query: [(String, String)] = []) async throws(StepError) -> DockerResponse {
        try self.mayGoOn()
        do {
            return try await self.docker.send(.get, path, query: query, until: self.deadline)
        } catch {
            throw self.unavailable(error.message)
        }
    }

    /// Waits while the engine is busy; the next request ends it where the deadline has passed.
    func pause(_ duration: Duration) async throws(StepError) {
        do {
            try await Task.sleep(for: duration)
        } catch {
            throw self.unavailable("cancelled while the Docker engine was busy")
        }
    }

    private func mayGoOn() throws(StepError) {
        do {
            try self.authorize()
        } catch {
            guard self.mayHaveActed else { throw error }
            throw StepError(.unknownOutcome, reason: error.reason, message: error.message)
        }
    }

    /// The engine gave no answer, or none that says what became of the request.
    func unavailable(_ message: String) -> StepError {
        StepError(
            self.mayHaveActed ? .unknownOutcome : .unavailable, reason: "PROVIDER_UNAVAILABLE",
            message: self.withoutSecrets(message))
    }

    /// What an answer means that is no success, or none that can be read.
    func failure(_ response: DockerResponse, doing what: String) -> StepError {
        let message = self.withoutSecrets("\(what): \(response.message)")
        switch response.status {
        case 200..<300:
            return self.unavailable("\(what): the Docker engine's answer can't be read")
        case 429:
            return StepError(
                self.mayHaveActed ? .unknownOutcome : .throttled(after: nil), reason: "PROVIDER_UNAVAILABLE",
                message: message)
        case 408, 500...:
            return StepError(
                self.mayHaveActed ? .unknownOutcome : .unavailable, reason: "PROVIDER_UNAVAILABLE", message: message)
        default:
            return StepError(
                self.mayHaveActed ? .unknownOutcome : .refused, reason: "PROVIDER_REFUSED", message: message)
        }
    }

    /// An engine may quote what it was sent.
    private func withoutSecrets(_ message: String) -> String {
        var text = Substring(message)
        for secret in self.secrets where secret.utf8.count >= 4 {
            text = Substring(text.split(separator: secret, omittingEmptySubsequences: false).joined(separator: "…"))
        }
        return String(text)
    }
}

extension RedroidProvider {
    func call(_ request: ProviderRequest, limit: Duration) -> RedroidCall {
        RedroidCall(
            docker: self.docker, deadline: .now + limit, authorize: request.authorize,
            secrets: request.options.values.sorted { $0.utf8.count > $1.utf8.count })
    }
}
