import Logging
public import SagaRuntime

extension RedroidProvider {
    public func start(
        _ device: ProviderDevice, _ request: ProviderRequest
    ) async throws(StepError) -> DeviceConnection {
        let names = try self.names(of: device)
        let id = try self.containerID(of: device)
        guard let ports = request.ports else {
            throw StepError(.refused, reason: "BOOT_FAILED", message: "a redroid device needs its ports")
        }
        var call = self.call(request, limit: self.callLimits.start)
        try await self.checkEngine(call)
        let response = try await call.act(.post, "/containers/\(id)/start")
        switch response.status {
        case 200..<300, 304:
            break
        case 404:
            try await self.checkAbsence(call)
            throw StepError(.notFound, reason: "BOOT_FAILED", message: "the container does not exist any more")
        case _ where Self.saysPortTaken(response):
            // The device has its record by now: its ports can't be granted anew.
            throw StepError(.refused, reason: "BOOT_FAILED", message: "a host port of the device is in use")
        case 408, 429, 500...:
            throw call.failure(response, doing: "start container")
        default:
            throw StepError(.refused, reason: "BOOT_FAILED", message: "start container: \(response.message)")
        }

        try await self.waitForBoot(names, serial: self.serial(adbPort: ports.adb), request, call)
        return DeviceConnection(
            host: self.configuration.advertisedHost, adbPort: ports.adb, webRTCPort: ports.webRTC,
            attributes: ["container": names.container])
    }

    /// Waits until the device has booted, the container dies, or the boot limit is over, whichever comes first.
    private func waitForBoot(
        _ names: RedroidNames, serial: String, _ request: ProviderRequest, _ call: RedroidCall
    ) async throws(StepError) {
        let deadline = ContinuousClock.now + self.configuration.bootLimit
        let result = await withTaskGroup(of: Result<Void, StepError>.self) { group in
            group.addTask {
                await Self.result { () async throws(StepError) in
                    try await self.pollBoot(serial: serial, authorize: request.authorize, until: deadline)
                }
            }
            group.addTask {
                await Self.result { () async throws(StepError) in try await self.watchContainer(names, call) }
            }
            defer { group.cancelAll() }
            return await group.next() ?? .success(())
        }
        // What a cancelled task says of itself depends on where it was.
        if Task.isCancelled, case .failure = result {
            throw StepError(
                .unknownOutcome, reason: "PROVIDER_UNAVAILABLE", message: "cancelled while the device was booting")
        }
        try result.get()
    }

    private static func result(
        of body: () async throws(StepError) -> Void
    ) async -> Result<Void, StepError> {
        do {
            return .success(try await body())
        } catch {
            return .failure(error)
        }
    }

    /// Connects adb and asks for `sys.boot_completed` until it is 1.
    private func pollBoot(
        serial: String, authorize: @Sendable () throws(StepError) -> Void, until bootDeadline: ContinuousClock.Instant
    ) async throws(StepError) {
        var pause = Duration.milliseconds(50)
        var isConnected = false
        var lastState = "adb did not answer"
        var unreachableSince: ContinuousClock.Instant?
        while true {
            try authorize()
            do {
                let limit = min(bootDeadline, .now + .seconds(5))
                if !isConnected {
                    try await self.adb.connect(to: serial, until: limit)
                    isConnected = true
                }
                unreachableSince = nil
                let answer = try await self.adb.shell("getprop sys.boot_completed", on: serial, until: limit)
                if answer.split(whereSeparator: \.isWhitespace) == ["1"] { return }
                lastState = "adb answers, sys.boot_completed is not 1"
            } catch .unreachable {
                // A server that somebody else runs may just be starting again.
                let since = unreachableSince ?? .now
                unreachableSince = since
                isConnected = false
                let isStarted = await self.startADBServer(until: min(bootDeadline, .now + .seconds(10)))
                if !isStarted, .now - since >= Self.adbServerPatience {
                    let server = "\(self.configuration.adbServerHost):\(self.configuration.adbServerPort)"
                    throw StepError(
                        .unavailable, reason: "PROVIDER_UNAVAILABLE", message: "no adb server answers at \(server)")
                }
                lastState = "the adb server can't be reached"
            } catch {
                // Offline, connection refused or cut: the device's adb is not up yet; or another container had this port,
                // and the server still believes itself connected to that.
                lastState = Self.description(of: error)
                isConnected = false
                try? await self.adb.disconnect(serial, until: min(bootDeadline, .now + .seconds(2)))
            }
            guard .now + pause < bootDeadline else {
                let limit = self.configuration.bootLimit.inSeconds
                throw StepError(
                    .refused, reason: "BOOT_FAILED",
                    message: "the device did not boot within \(limit) s; at last: \(lastState)")
            }
            do {
                try await Task.sleep(for: pause)
            } catch {
                throw StepError(
                    .unknownOutcome, reason: "PROVIDER_UNAVAILABLE", message: "cancelled while the device was booting")
            }
            pause = min(pause * 2, .seconds(1))
        }
    }

    /// Looks every second whether the container still runs: for one that is down, no need to wait for the limit. Returns
    /// only by throwing.
    private func watchContainer(_ names: RedroidNames, _ call: RedroidCall) async throws(StepError) {
        var restartsBefore: Int?
        while true {
            let response = try await call.ask("/containers/\(names.container)/json")
            if response.status == 404 {
                try await self.checkAbsence(call)
                throw StepError(.notFound, reason: "BOOT_FAILED", message: "the container is gone")
            }
            if response.status == 200, let found = response.decoded(as: DockerInspected.self) {
                // A container that its engine restarts is a device that crashed while it booted.
                let restarts = found.RestartCount ?? 0
                if found.State?.Running == false || found.State?.Restarting == true
                    || restarts > restartsBefore ?? restarts
                {
                    let memory = found.State?.OOMKilled == true ? ", out of memory" : ""
                    let code = found.State?.ExitCode ?? -1
                    throw StepError(
                        .refused, reason: "BOOT_FAILED",
                        message: "the container stopped while booting, exit code \(code)\(memory)")
                }
                restartsBefore = restartsBefore ?? restarts
            }
            try await call.pause(.seconds(1))
        }
    }

    /// How long an adb server may be away while a device boots.
    private static let adbServerPatience = Duration.seconds(5)

    /// False if it isn't ours to start, or can't be.
    private func startADBServer(until deadline: ContinuousClock.Instant) async -> Bool {
        guard self.configuration.startsADBServer,
            await ADBServerLauncher.start(port: self.configuration.adbServerPort, until: deadline)
        else { return false }
        self.logger.info("started an adb server", metadata: ["port": "\(self.configuration.adbServerPort)"])
        return true
    }

    private static func description(of error: ADBError) -> String {
        switch error {
        case .failed(let message): Text.sanitised("adb: \(message)", maximumScalars: 200)
        case .malformed: "the adb server broke off"
        case .timedOut: "adb did not answer in time"
        case .unreachable: "the adb server can't be reached"
        }
    }
}
