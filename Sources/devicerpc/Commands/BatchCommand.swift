import ArgumentParser
import DeviceRPC
import FoundationEssentials
import Glibc
import RPCTransport

struct BatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "batch", abstract: "Creates many devices.",
        discussion: """
            From a template (one CreateDeviceRequest in proto3 JSON, --set and flags) with --name 'phone-{n:3}' and \
            --count, or from --requests, a file with a JSON array of requests or one request per line. All go over one \
            CreateDevices stream.

            For example: devicerpc batch --template phone.json --set spec.cpuCores=4 --name 'phone-{n:3}' --count 50

            Each request's id is made from the batch id and the name: a batch that was interrupted is run again with \
            the same --batch-id and goes on where it was, and makes nothing twice. What failed before fails again, \
            unless --retry-failed makes a new try of it.

            The results file is a JSON object by name with status, saga_id, device_id, connection, request_id, code, \
            reason and message; the failed ones come last. A device that was made stays there as made.

            \(CommandStatus.help)
            """)

    @Option(
        help: ArgumentHelp(
            "Names of the devices, with {n} for the number, {n:3} for at least 3 digits.", valueName: "pattern"))
    var name: String?

    @Option(help: "How many devices to make from the template.", transform: OptionValues.number(1...1_000_000))
    var count: Int?

    @Option(help: "The first number.", transform: OptionValues.number(0...1_000_000_000))
    var start: Int = 1

    @Option(help: ArgumentHelp("A file of requests (- is standard input) instead of a template.", valueName: "file"))
    var requests: String?

    @OptionGroup(title: "Template")
    var create: CreateOptions

    @Option(help: "The batch's id, up to 64 printable ASCII characters; made up if not given, and printed.")
    var batchID: String?

    @Option(help: "Devices under way at once.", transform: OptionValues.number(1...4096))
    var parallel: Int = 64

    @Option(
        help: ArgumentHelp("Start nothing more once so many have failed.", valueName: "number"),
        transform: OptionValues.number(1...1_000_000))
    var maxFailures: Int?

    @Flag(name: .customLong("validate"), help: "Have the server check each request, and start nothing.")
    var validatesOnly = false

    @Option(help: ArgumentHelp("Where the results go; <batch id>.results.json if not given.", valueName: "file"))
    var results: String?

    @Flag(help: "Make a new try of what failed, as the results file says.")
    var retryFailed = false

    @Option(
        help: ArgumentHelp("How long to wait for each device.", valueName: "duration"),
        transform: OptionValues.duration())
    var timeout = DurationArgument(.seconds(1800))

    @OptionGroup(title: "Client")
    var client: ClientOptions

    func validate() throws {
        if (self.requests == nil) == (self.count == nil) {
            throw ValidationError("Give either --requests or --count (with --name).")
        }
    }

    func run() async throws {
        try await self.client.run { client in
            if self.validatesOnly { try await self.checkThatItValidates(client) }
            let batchID = self.batchID ?? RandomID.make(prefix: "batch")
            let path = self.results ?? "\(String(batchID.map { $0 == "/" ? "_" : $0 })).results.json"
            let earlier = try self.earlierResults(path)
            let requests = try self.makeRequests()
            // Those of a file fail one by one.
            if self.requests == nil, let first = requests.first { try RequestCheck.check(first) }
            let plan = try BatchPlan(
                batchID: batchID, requests: requests, earlier: earlier, retriesFailed: self.retryFailed,
                validatesOnly: self.validatesOnly)
            if !self.validatesOnly { StandardError.write("batch_id  \(batchID)\nresults   \(path)\n") }
            let tally = try await self.execute(plan, client, path: path, earlier: earlier)
            try self.finish(tally)
        }
    }

    /// One that doesn't know `validate_only` would create.
    private func checkThatItValidates(_ client: DeviceClient) async throws {
        do {
            _ = try await client.batchGetDevices(.init(), timeout: self.timeout.duration)
        } catch let failure as CallFailure where failure.code == .unimplemented {
            throw UsageError("--validate: the server is too old to check requests without creating devices")
        }
    }

    private func makeRequests() throws -> [V1.CreateDeviceRequest] {
        var requests: [V1.CreateDeviceRequest]
        if let file = self.requests {
            let text = try InputFile.read(file, "--requests")
            do throws(ProtoJSONError) {
                requests = try ProtoJSON.messages(text, as: V1.CreateDeviceRequest.self)
            } catch {
                throw UsageError("--requests: \(file): \(error)")
            }
        } else {
            let template = try self.create.request()
            let pattern = self.name ?? template.name
            requests = try BatchPlan.expand(template, pattern: pattern, count: self.count ?? 0, start: self.start)
        }
        let returnWhen: V1.ReturnWhen =
            try self.create.returnWhen.map { try EnumArgument.value($0, "--return-when") } ?? .finished
        for index in requests.indices {
            if requests[index].returnWhen == .unspecified || self.create.returnWhen != nil {
                requests[index].returnWhen = returnWhen
            }
            if let userID = self.create.userID { requests[index].userID = userID }
        }
        return requests
    }

    private func earlierResults(_ path: String) throws -> [String: BatchOutcome] {
        guard let data = FileManager.default.contents(atPath: path) else { return [:] }
        do {
            return try BatchResults.decode(data)
        } catch {
            throw UsageError(
                "--results: '\(path)' exists and is no results file (allowed: a new file, or one of an earlier run)")
        }
    }

    /// Runs all, draws progress on standard error, and keeps the results file up to date every second.
    private func execute(
        _ plan: BatchPlan, _ client: DeviceClient, path: String, earlier: [String: BatchOutcome]
    ) async throws -> BatchTally {
        let started = ContinuousClock.now
        let terminal = self.client.terminal(STDERR_FILENO)
        let state = Shared(BatchTally(total: plan.items.count))
        let runner = BatchRunner(
            client: client, parallel: self.parallel, timeout: self.timeout.duration, maximumFailures: self.maxFailures)
        // Where results can't go, nothing shall start.
        try self.save(state.current, earlier, path)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                try await runner.run(plan) { item, outcome in state.withLock { $0.add(item.name, outcome) } }
                return true
            }
            group.addTask {
                var line = LiveLine(write: StandardError.write)
                var tick = 0
                while !Task.isCancelled {
                    let tally = state.current
                    if terminal.isInteractive {
                        line.draw(tally.line(elapsed: .now - started, style: terminal.style), width: Terminal.width())
                    } else if tick % 100 == 99 {
                        StandardError.write("\(tally.done) of \(tally.total) done, \(tally.failed) failed\n")
                    }
                    tick += 1
                    if tick % 10 == 0 { try self.save(tally, earlier, path) }
                    try? await Task.sleep(for: .milliseconds(100))
                }
                line.clear()
                return false
            }
            while let isFinished = try await group.next() {
                if isFinished { group.cancelAll() }
            }
        }
        let tally = state.current
        try self.save(tally, earlier, path)
        StandardError.write(tally.line(elapsed: .now - started, style: terminal.style) + "\n")
        StandardError.write(tally.reasons(style: terminal.style))
        if tally.done < tally.total {
            StandardError.write("\(tally.total - tally.done) were not started, after \(tally.failed) failures\n")
        }
        return tally
    }

    private func save(_ tally: BatchTally, _ earlier: [String: BatchOutcome], _ path: String) throws {
        if self.validatesOnly { return }
        let data = try BatchResults.encode(earlier.merging(tally.outcomes) { $0.followed(by: $1) })
        do {
            try data.write(to: URL(filePath: path), options: .atomic)
        } catch {
            let reason =
                switch (error as? CocoaError)?.code {
                case .fileNoSuchFile: "no such folder"
                case .fileWriteNoPermission, .fileWriteVolumeReadOnly: "not allowed"
                case .fileWriteOutOfSpace: "no space is left"
                default: "not a place for a file"
                }
            throw UsageError(
                "--results: '\(path)' can't be written: \(reason) (allowed: a file in a folder that exists)")
        }
    }

    private func finish(_ tally: BatchTally) throws {
        switch self.client.output {
        case .json: StandardOutput.write(String(decoding: try BatchResults.encode(tally.outcomes), as: UTF8.self))
        case .text:
            var table = TextTable(["NAME", "STATUS", "SAGA", "REASON", "MESSAGE"])
            for (name, outcome) in BatchResults.failedLast(tally.outcomes)
            where !self.validatesOnly || !outcome.isSuccess {
                table.append([name, outcome.status.rawValue, outcome.sagaID, outcome.failure, outcome.message])
            }
            StandardOutput.write(table.render(style: self.client.terminal().style))
        }
        let status = tally.status
        if status != .success { throw Exit(status) }
    }
}
