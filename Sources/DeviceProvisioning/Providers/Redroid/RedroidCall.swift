import Logging
import SagaRuntime
import Synchronization

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
    /// Told of a status that is not the engine's, and of the path: an operator has to look at the configuration.
    let complain: @Sendable (Int, String) -> Void
    /// An effect of this call exists or may exist.
    var mayHaveActed = false

    /// Sends a request that changes something. Returns only with the engine's own word.
    mutating func act(
        _ method: DockerMethod, _ path: String, query: [(String, String)] = [], body: [UInt8]? = nil
    ) async throws(StepError) -> DockerResponse {
        let response: DockerResponse
        do {
            response = try await self.docker.send(
                method, path, query: query, body: body, until: self.deadline, authorize: self.authorize)
        } catch {
            if case .sent = error { self.mayHaveActed = true }
            throw self.failure(error)
        }
        if response.author == .unknown { self.mayHaveActed = true }
        guard response.author == .engine else { throw self.misdirected(response, path) }
        return response
    }

    /// Sends a request that only asks. Returns only with the engine's own word.
    func ask(_ path: String, query: [(String, String)] = []) async throws(StepError) -> DockerResponse {
        let response: DockerResponse
        do {
            response = try await self.docker.send(
                .get, path, query: query, until: self.deadline, authorize: self.authorize)
        } catch {
            throw self.failure(error)
        }
        guard response.author == .engine else { throw self.misdirected(response, path) }
        return response
    }

    /// Waits while the engine is busy; the next request ends it where the deadline has passed.
    func pause(_ duration: Duration) async throws(StepError) {
        do {
            try await Task.sleep(for: duration)
        } catch {
            throw self.unavailable("cancelled while the Docker engine was busy")
        }
    }

    private func failure(_ failure: DockerFailure) -> StepError {
        switch failure {
        case .notSent(let message), .sent(let message): return self.unavailable(message)
        case .unauthorized(let error):
            guard self.mayHaveActed else { return error }
            return StepError(.unknownOutcome, reason: error.reason, message: error.message)
        }
    }

    /// Somebody between here and the engine answered.
    private func misdirected(_ response: DockerResponse, _ path: String) -> StepError {
        if response.author == .gateway { self.complain(response.status, path) }
        return self.unavailable("something before the Docker engine answered \(response.status)")
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
            secrets: request.options.values.sorted { $0.utf8.count > $1.utf8.count }, complain: self.complain)
    }

    /// One line a minute for all calls that meet it.
    func complain(_ status: Int, _ path: String) {
        guard let count = self.misdirections.withLock({ $0.occurred(now: .now) }) else { return }
        self.logger.error(
            "requests don't reach the Docker engine: DOCKER_HOST or a gateway before it is wrong",
            metadata: ["status": "\(status)", "path": "\(path)", "count": "\(count)"])
    }
}
