import ArgumentParser
import DeviceRPC
import FoundationEssentials
import Glibc

struct BatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "batch", abstract: "Creates many devices.",
        discussion: """
            From a template (one CreateDeviceRequest in proto3 JSON, or flags) with --name 'phone-{n:3}' and --count, \
            or from --requests, a file with a JSON array of requests or one request per line.

            Each request's id is made from the batch id and the name: a batch that was interrupted is run again with \
            the same --batch-id and goes on where it was, and makes nothing twice. What failed before fails again, \
            unless --retry-failed makes a new try of it.

            The results file is a JSON object by name with status, saga_id, device_id, request_id, code, reason and \
            message.

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

    @Option(help: "Calls at once.", transform: OptionValues.number(1...4096))
    var parallel: Int = 16

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
            let batchID = self.batchID ?? RandomID.make(prefix: "batch")
            let path = self.results ?? "\(String(batchID.map { $0 == "/" ? "_" : $0 })).results.json"
            let earlier = try self.earlierResults(path)
            let requests = try self.makeRequests()
            // Those of a file fail one by one.
            if self.requests == nil, let first = requests.first { try RequestCheck.check(first) }
            let plan = try BatchPlan(
                batchID: batchID, requests: requests, earlier: earlier, retriesFailed: self.retryFailed)
            StandardError.write("batch_id  \(batchID)\nresults   \(path)\n")
            let tally = try await self.execute(plan, client, path: path, earlier: earlier)
            try self.finish(plan, tally)
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
        let runner = BatchRunner(client: client, parallel: self.parallel, timeout: self.timeout.duration)
        // Where results can't go, nothing shall start.
        try Self.save(state.current, earlier, path)
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
                    if tick % 10 == 0 { try Self.save(tally, earlier, path) }
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
        try Self.save(tally, earlier, path)
        StandardError.write(tally.line(elapsed: .now - started, style: terminal.style) + "\n")
        return tally
    }

    private static func save(_ tally: BatchTally, _ earlier: [String: BatchOutcome], _ path: String) throws {
        let data = try BatchResults.encode(earlier.merging(tally.outcomes) { $1 })
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

    private func finish(_ plan: BatchPlan, _ tally: BatchTally) throws {
        switch self.client.output {
        case .json: StandardOutput.write(String(decoding: try BatchResults.encode(tally.outcomes), as: UTF8.self))
        case .text:
            var table = TextTable(["NAME", "STATUS", "SAGA", "REASON", "MESSAGE"])
            for item in plan.items {
                guard let outcome = tally.outcomes[item.name] else { continue }
                let reason = outcome.reason.isEmpty && outcome.code != "OK" ? outcome.code : outcome.reason
                table.append([item.name, outcome.status.rawValue, outcome.sagaID, reason, outcome.message])
            }
            StandardOutput.write(table.render(style: self.client.terminal().style))
        }
        let status = tally.status
        if status != .success { throw Exit(status) }
    }
}
