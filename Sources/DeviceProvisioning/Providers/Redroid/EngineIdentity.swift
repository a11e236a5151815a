import Logging
import SagaRuntime
import Synchronization

/// Which engine answers at a site's address, and whether it is the one that the site's name stands for.
///
/// An engine has an id of its own, which is remembered when it is first met (table `site`). Another one at the address would
/// say of each device that it isn't there.
final class EngineIdentity: Sendable {
    private struct State {
        /// When the newest question that was answered was asked.
        var asked: ContinuousClock.Instant?
        /// What was wrong then.
        var problem: String?
        /// The site's name stands for another engine than the one that answered last.
        var isAnother = false
        var complaints = Occasionally()
    }

    /// How old an answer may be that effects rely on.
    private static let maximumAge = Duration.seconds(1)
    private static let limit = Duration.seconds(5)

    private let site: String
    private let docker: DockerClient
    private let memory: any EngineMemory
    private let logger: Logger
    private let state = Mutex(State())

    init(site: String, docker: DockerClient, memory: any EngineMemory, logger: Logger) {
        self.site = site
        self.docker = docker
        self.memory = memory
        self.logger = logger
    }

    /// False once another engine answers. One that can't be reached is the right one, for all that is known.
    var isRight: Bool { self.state.withLock { !$0.isAnother } }

    /// Why nothing may be believed of what answers at the address, as of a second ago; `nil`: it is the site's engine.
    func problem() async -> String? {
        let now = ContinuousClock.now
        let known = self.state.withLock { state in
            state.asked.map { now - $0 < Self.maximumAge && state.problem == nil } ?? false
        }
        return known ? nil : await self.ask()
    }

    /// The same, asked now. It asks only, and so needs no permission of a saga's.
    func ask() async -> String? {
        let asked = ContinuousClock.now
        let (problem, isAnother) = await self.findOut()
        let complaint = self.state.withLock { state -> Int? in
            if let newest = state.asked, newest > asked { return nil }
            state.asked = asked
            state.problem = problem
            if let isAnother { state.isAnother = isAnother }
            return isAnother == true ? state.complaints.occurred(now: asked) : nil
        }
        if let problem, complaint != nil {
            self.logger.error("a site is not served: \(problem)", metadata: ["site": "\(self.site)"])
        }
        return problem
    }

    /// - Returns: what is wrong, and whether another engine answers (`nil`: nobody knows).
    private func findOut() async -> (problem: String?, isAnother: Bool?) {
        let answer: DockerResponse
        do throws(DockerFailure) {
            answer = try await self.docker.send(.get, "/info", until: .now + Self.limit)
        } catch {
            switch error {
            case .notSent(let message), .sent(let message): return (message, nil)
            case .unauthorized(let error): return (error.message, nil)
            }
        }
        guard answer.author == .engine, answer.status == 200, let id = answer.decoded(as: DockerInfo.self)?.ID,
            (1...200).contains(id.utf8.count)
        else { return ("the Docker engine doesn't say which one it is", nil) }
        let known: String
        do {
            known = try await self.memory.remembered(id, of: self.site)
        } catch {
            return ("the database doesn't say which engine the site \(self.site) is", nil)
        }
        if known == id { return (nil, false) }
        return (
            "another Docker engine answers at \(self.docker.endpoint) than the one that the site \(self.site) is", true
        )
    }
}
